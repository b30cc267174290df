// The published LND library as a node of the test bed: nothing but its own start sequence.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/jessevdk/go-flags"
	"github.com/lightningnetwork/lnd"
	"github.com/lightningnetwork/lnd/signal"
)

func run() error {
	stopped, err := signal.Intercept()
	if err != nil {
		return err
	}
	config, err := lnd.LoadConfig(stopped)
	if err != nil {
		return err
	}
	return lnd.Main(config, lnd.ListenerCfg{}, config.ImplementationConfig(stopped), stopped)
}

func main() {
	err := run()
	var help *flags.Error
	if err == nil || errors.As(err, &help) && help.Type == flags.ErrHelp {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
