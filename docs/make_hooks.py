"""Writes ``docs/hooks.md`` from the docstrings of the hook specifications and service protocols.

python docs/make_hooks.py            # write
python docs/make_hooks.py --check    # exit code 1 if the file is not what would be written
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

from leyden.hooks import hookspecs
from leyden.hooks.contract import SECTIONS, HookContract, contracts
from leyden.hooks.registry import KEY_CAPABILITIES, KINDS

PAGE = Path(__file__).with_name("hooks.md")

HEAD = """\
# Hooks and services

<!-- Written by docs/make_hooks.py from the docstrings in leyden.hooks; edit those. -->

A plugin is a Python module that an entry point of group `leyden` names. It answers **hooks** (questions and notices)
with functions of the same name, marked with `leyden.hooks.hookimpl`, and it may offer **services** (objects that the
node runs on), which the config chooses by name. An implementation takes any of a hook's arguments, by name, and may be
`async`.

Of a plugin that is installed but not named by the config only the metadata is read; its code is not imported. A plugin
that fails, is late or answers with a wrong type costs the node nothing: the answer counts as a *no*, the fault is
counted, and after {faults} faults in a row the plugin is quarantined until the next start. `leyden plugins` shows what
is installed, enabled and provided.

## Hooks

| hook | asked or told | deadline | result policy |
|---|---|---|---|
"""

SERVICES = """\
## Services

A service is made once at start by the factory that its plugin registered in `leyden_register_services`. The config
names one provider per kind; the kinds marked with a star are capabilities of the key manager: the key `keys` names one
provider for all of them, a key of their own overrides it. Each section gives the methods that the object must have, as
declared in `leyden.hooks.services`.

| config key | protocol |
|---|---|
"""


def hook_rows(known: dict[str, HookContract]) -> Iterator[str]:
    for name, contract in known.items():
        summary = (inspect.getdoc(getattr(hookspecs, name)) or "").partition("\n")[0]
        deadline = "none" if contract.deadline is None else f"{contract.deadline:g} s"
        yield f"| [`{name}`](#{name}) | {summary} | {deadline} | {contract.policy.value} |"


def hook_section(name: str) -> Iterator[str]:
    """Heading, signature and every section of the contract as a list."""
    function = getattr(hookspecs, name)
    text = inspect.getdoc(function) or ""
    first, _, rest = text.partition("\n")
    yield f"({name})="
    yield f"### `{name}`"
    yield ""
    yield first.replace("``", "`")
    yield ""
    yield "```python"
    yield f"def {name}{signature(function)}"
    yield "```"
    yield ""
    for heading, body in sections(rest):
        yield f"- **{heading}**: {body}"
    yield ""


def signature(function: Callable[..., object]) -> str:
    """``(arguments) -> result`` as written, without ``self`` and without the quotes of forward references."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.returns is None:
        raise SystemExit(f"{function} is no function with an annotated result")
    node.args.args = [argument for argument in node.args.args if argument.arg != "self"]
    for argument in node.args.args:
        argument.annotation = unquoted(argument.annotation)
    return f"({ast.unparse(node.args)}) -> {ast.unparse(unquoted(node.returns))}"


def unquoted(annotation: ast.expr | None) -> ast.expr:
    if annotation is None:
        raise SystemExit("an argument has no annotation")
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


def sections(text: str) -> Iterator[tuple[str, str]]:
    pattern = "|".join(SECTIONS)
    parts = re.split(rf"^({pattern}):\n", text, flags=re.MULTILINE)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        yield heading, " ".join(body.split()).replace("``", "`")


def service_section(kind: str, protocol: type) -> Iterator[str]:
    yield f"(service-{kind})="
    yield f"### `{protocol.__name__}`"
    yield ""
    if prose(protocol):
        yield prose(protocol)
        yield ""
    for name, member in vars(protocol).items():
        target = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(target):
            continue
        yield "```python"
        yield declaration(name, target, isinstance(member, property))
        yield "```"
        yield ""
        text = prose(target)
        if text:
            yield text
            yield ""


def declaration(name: str, function: object, is_property: bool) -> str:
    text = signature(function)
    if is_property:
        return f"{name}: {text.partition(' -> ')[2]}"
    return f"{'async ' if inspect.iscoroutinefunction(function) else ''}def {name}{text}"


def prose(thing: object) -> str:
    """The docstring as Markdown; one of a base class does not count."""
    if not getattr(thing, "__doc__", None):
        return ""
    return (inspect.getdoc(thing) or "").replace("``", "`")


def page() -> str:
    from leyden.node.dispatcher import FAULTS_BEFORE_QUARANTINE

    known = contracts()
    lines = [HEAD.format(faults=FAULTS_BEFORE_QUARANTINE).rstrip("\n"), *hook_rows(known), ""]
    for name in known:
        lines += hook_section(name)
    lines.append(SERVICES.rstrip("\n"))
    for kind, protocol in KINDS.items():
        star = " \\*" if kind in KEY_CAPABILITIES else ""
        lines.append(f"| `{kind}`{star} | [`{protocol.__name__}`](#service-{kind}) |")
    lines.append("")
    for kind, protocol in KINDS.items():
        lines += service_section(kind, protocol)
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
