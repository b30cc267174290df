// LDK's peers over TCP. What LDK wants to send waits until `flush`, so that nothing leaves before the state is on disk.
import net from "node:net";

import * as ldk from "lightningdevkit";

export class Sockets {
  /** `turn` is called after everything that arrived. */
  constructor(peer_manager, turn) {
    this.peer_manager = peer_manager;
    this.turn = turn;
    this.open = new Map();
    this.count = 0n;
  }

  listen(host, port) {
    const nowhere = ldk.Option_SocketAddressZ.constructor_none();
    this.server = net.createServer((socket) => {
      const descriptor = this.#adopt(socket);
      if (!this.peer_manager.new_inbound_connection(descriptor, nowhere).is_ok()) socket.destroy();
      this.turn();
    });
    return new Promise((resolve, reject) => {
      this.server.once("error", reject);
      this.server.listen(port, host, resolve);
    });
  }

  /** Done when the TCP connection is there; the handshake follows. */
  connect(host, port, node_id) {
    return new Promise((resolve, reject) => {
      const socket = net.connect(port, host);
      socket.once("error", reject);
      socket.once("connect", () => {
        socket.off("error", reject);
        const descriptor = this.#adopt(socket);
        const nowhere = ldk.Option_SocketAddressZ.constructor_none();
        const first = this.peer_manager.new_outbound_connection(node_id, descriptor, nowhere);
        if (!first.is_ok()) {
          socket.destroy();
          return reject(new Error("LDK takes no connection to this peer now"));
        }
        descriptor.send_data(first.res, true);
        this.turn();
        resolve(socket);
      });
    });
  }

  flush() {
    for (const entry of this.open.values()) {
      for (const data of entry.waiting.splice(0)) entry.socket.write(data);
      if (entry.ending) entry.socket.end();
    }
  }

  #adopt(socket) {
    socket.setNoDelay(true);
    const id = this.count++;
    const entry = { socket, waiting: [], ending: false };
    const descriptor = ldk.SocketDescriptor.new_impl({
      send_data(data, resume_read) {
        if (resume_read) socket.resume();
        entry.waiting.push(Uint8Array.from(data));
        return data.length;
      },
      disconnect_socket: () => {
        entry.ending = true;
      },
      eq: (other) => other.hash() === id,
      hash: () => id,
    });
    this.open.set(id, entry);
    socket.on("data", (data) => {
      if (entry.ending) return;
      const read = this.peer_manager.read_event(descriptor, new Uint8Array(data));
      if (!read.is_ok()) entry.ending = true;
      else if (read.res) socket.pause();
      this.turn();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      this.open.delete(id);
      if (!entry.ending) this.peer_manager.socket_disconnected(descriptor);
      this.turn();
    });
    return descriptor;
  }
}
