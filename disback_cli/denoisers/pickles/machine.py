"""An interpreter of pickle opcodes that executes nothing.

The pickle format is a small stack language (documented opcode by opcode in the standard library's ``pickletools``).
Its danger lies in naming any importable callable and calling it. Here a name is looked up in a list given by the
caller, whose entries are our own handlers; nothing is ever imported or looked up as an attribute. Every length is
compared with the bytes that are left before anything is made of it, and there is no recursion.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from disback_cli.denoisers.pickles.graph import finish
from disback_cli.denoisers.pickles.objects import Handler, InertDict, Reading, Standin, checked_key, describe, shown
from disback_cli.denoisers.pickles.tape import Tape

HIGHEST_PROTOCOL = 5
MAX_LONG = 128
# Longer byte strings stay views of the file until somebody needs them; weights are copied once, into their tensor.
MAX_COPIED = 4096

Allowed = Mapping[tuple[str, str], Handler]


class Machine(Tape):
    """Reads one pickle."""

    def __init__(
        self,
        data: memoryview,
        reading: Reading,
        allow: Allowed,
        persistent: Callable[[Any], Any] | None = None,
        start: int = 0,
    ) -> None:
        """Prepare to read.

        Args:
            data: the file, or the part of it that may be read.
            reading: the file, for messages and limits.
            allow: handlers of the (module, name) pairs that may be named.
            persistent: gives the object that a persistent id stands for; None refuses them.
            start: where the pickle begins.
        """
        super().__init__(data, reading, start)
        self.allow = allow
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> tuple[Any, int]:
        """Interpret the pickle.

        Returns:
            The object, still containing stand-ins (see ``finish``), and the position after the pickle.

        Raises:
            UserError: the pickle is damaged, names something that is not allowed, or asks for too much.
        """
        while (code := self.byte()) != _STOP:
            self.reading.count()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise self.error(f"there is no opcode {code:#04x} in a pickle of this kind: no pickle, or damaged")
            operation(self)
        if len(self.stack) != 1 or self.marked:
            raise self.error("the pickle ends with unfinished objects: it is damaged")
        return self.stack[0], self.position

    def push(self, value: Any) -> None:
        """Put a value on the stack; the stack itself is looked up after the value is made, which may change it."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the top of the stack."""
        self.top()
        return self.stack.pop()

    def top(self) -> Any:
        """Look at the top of the stack."""
        if not self.stack:
            raise self.error("an operation lacks its operand: the pickle is damaged")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        if not self.marked:
            raise self.error("an operation lacks its mark: the pickle is damaged")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def find(self, module: Any, name: Any) -> Handler:
        """The handler of a global."""
        if type(module) is not str or type(name) is not str:
            raise self.error("a global's name is no text: the pickle is damaged")
        handler = self.allow.get((module, name))
        if handler is None:
            raise self.error(
                f"it names the global {shown(module + '.' + name)[1:-1]}, which does not belong into such a file "
                "and is refused"
            )
        return handler

    def call(self, function: Any, arguments: Any) -> Any:
        """Let a handler act."""
        if not isinstance(function, Handler):
            raise self.error(f"it calls {describe(function)}, which is not callable")
        if type(arguments) is not tuple:
            raise self.error(f"it calls {function.name} with {describe(arguments)} instead of a tuple")
        return function.call(arguments)

    def fill(self, container: Any, items: list[Any]) -> Any:
        """Add keys and values, alternating, to a dictionary, and return it."""
        if not isinstance(container, dict):
            raise self.error(f"it sets items of {describe(container)}, which is no dictionary")
        if len(items) % 2:
            raise self.error("a key lacks its value: the pickle is damaged")
        for index in range(0, len(items), 2):
            container[checked_key(items[index], self.reading)] = items[index + 1]
        return container

    def push_line_number(self, kind: type[int] | type[float], suffix: str = "") -> None:
        """Push the number written out on the next line."""
        text = self.line().removesuffix(suffix)
        if kind is int and text in ("00", "01") and not suffix:
            self.push(text == "01")
            return
        try:
            number = kind(text)
        except ValueError:
            raise self.error(f"{shown(text)} is no number: the pickle is damaged") from None
        if isinstance(number, int) and number.bit_length() > 8 * MAX_LONG:
            raise self.error("an integer is longer than any that belongs into such a file")
        self.push(number)

    def push_quoted(self) -> None:
        """Push a quoted text of protocol 0; only the plain ones, which need no escapes."""
        text = self.line()
        if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"" or "\\" in text:
            raise self.error(
                f"the text {shown(text)} is not a plain quoted one: save the file with protocol 2 or later"
            )
        self.push(text[1:-1])

    def push_long(self, width: int) -> None:
        """Push an integer of any size."""
        size = self.number(width, signed=width == 4)
        if size > MAX_LONG:
            raise self.error(f"an integer of {size:,} bytes is longer than any that belongs into such a file")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def push_bytes(self, width: int, kind: type[bytes] | type[bytearray] = bytes) -> None:
        """Push a byte string; a long one as a view."""
        view = self.take(self.number(width))
        self.push(kind(view) if len(view) <= MAX_COPIED else view)

    def push_python2_text(self, width: int, signed: bool) -> None:
        """Push a string of Python 2, which may hold bytes: latin-1 maps each byte to one character."""
        self.push(self.text(self.take(self.number(width, signed)), "latin-1"))

    def remember(self, index: int) -> None:
        """Keep the top of the stack for later references."""
        if index < 0:
            raise self.error("a reference has a negative number: the pickle is damaged")
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        """Push what was kept."""
        if index not in self.memo:
            raise self.error(f"it refers to object {index}, which does not exist: the pickle is damaged")
        self.push(self.memo[index])

    def line_index(self) -> int:
        """The number of a reference, written out on the next line."""
        text = self.line()
        if not text.isascii() or not text.isdigit() or len(text) > 20:
            raise self.error(f"{shown(text)} is no reference: the pickle is damaged")
        return int(text)

    def pop_top_or_mark(self) -> None:
        """Drop the top of the stack, or an empty mark."""
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def mark(self) -> None:
        """Begin a list of operands."""
        self.marked.append(self.stack)
        self.stack = []

    def push_tuple(self, count: int) -> None:
        """Push a tuple of the topmost objects."""
        if len(self.stack) < count:
            raise self.error("a tuple lacks its entries: the pickle is damaged")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def append(self, items: list[Any]) -> None:
        """Add items to the list at the top."""
        if type(self.top()) is not list:
            raise self.error(f"it appends to {describe(self.top())}, which is no list")
        self.top().extend(items)

    def set_item(self) -> None:
        """Add one key and value to a dictionary."""
        value, key = self.pop(), self.pop()
        self.fill(self.top(), [key, value])

    def set_marked_items(self) -> None:
        """Add the marked keys and values to a dictionary."""
        items = self.pop_mark()
        self.fill(self.top(), items)

    def add_marked_items(self) -> None:
        """Add the marked items to a set."""
        items = self.pop_mark()
        if type(self.top()) is not set:
            raise self.error(f"it adds to {describe(self.top())}, which is no set")
        self.top().update(checked_key(item, self.reading) for item in items)

    def push_set(self) -> None:
        """Push an empty set, which takes several times the memory of an empty list and is paid for accordingly."""
        self.reading.count(3)
        self.push(set())

    def push_frozenset(self) -> None:
        """Push a set of the marked items."""
        self.reading.count(3)
        self.push(frozenset(checked_key(item, self.reading) for item in self.pop_mark()))

    def push_global(self) -> None:
        """Push the handler named on the next two lines."""
        module = self.line()
        self.push(self.find(module, self.line()))

    def push_stack_global(self) -> None:
        """Push the handler named on the stack."""
        name, module = self.pop(), self.pop()
        self.push(self.find(module, name))

    def reduce(self) -> None:
        """Call, or make an instance; both are up to the handler."""
        arguments, function = self.pop(), self.pop()
        self.push(self.call(function, arguments))

    def new_with_keywords(self) -> None:
        """Make an instance; keywords are not supported."""
        keywords, arguments, function = self.pop(), self.pop(), self.pop()
        if type(keywords) is not dict or keywords:
            raise self.error(f"it calls {describe(function)} with keywords, which no file of this kind does")
        self.push(self.call(function, arguments))

    def new_marked(self) -> None:
        """Make an instance of the marked class with the marked arguments."""
        function, *arguments = self.pop_mark() or [None]
        self.push(self.call(function, tuple(arguments)))

    def new_named(self) -> None:
        """Make an instance of the class on the next two lines with the marked arguments."""
        module = self.line()
        function = self.find(module, self.line())
        self.push(self.call(function, tuple(self.pop_mark())))

    def build(self) -> None:
        """Give an object its state."""
        state, target = self.pop(), self.top()
        if isinstance(target, Standin):
            target.build(state)
        elif not isinstance(target, InertDict):
            raise self.error(f"it gives {describe(target)} a state, which no file of this kind does")

    def push_persistent(self, identity: Any) -> None:
        """Push the object that a persistent id stands for."""
        if self.persistent is None:
            raise self.error(f"it refers to an object outside the pickle ({describe(identity)}), which is refused")
        self.push(self.persistent(identity))

    def check_frame(self) -> None:
        """Frames only group bytes; their length must exist."""
        size = self.number(8)
        if size > len(self.data) - self.position:
            raise self.error(f"a frame of {size:,} bytes goes beyond the end: the file is truncated or damaged")

    def check_protocol(self) -> None:
        """Refuse protocols of the future."""
        protocol = self.number(1)
        if protocol > HIGHEST_PROTOCOL:
            raise self.error(f"pickle protocol {protocol} does not exist: no pickle, or damaged")

    def refuse_extension(self) -> None:
        """Extension codes name globals through a registry of the program."""
        raise self.error("it uses an extension code of the copyreg registry, which is refused")

    def refuse_buffer(self) -> None:
        """Out-of-band buffers lie outside the file."""
        raise self.error("it needs buffers that are not in the file (protocol 5, out of band)")


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[Machine], None]] = {
    ord("("): Machine.mark,
    ord("0"): Machine.pop_top_or_mark,
    ord("1"): lambda m: m.pop_mark().clear(),
    ord("2"): lambda m: m.push(m.top()),
    ord("F"): lambda m: m.push_line_number(float),
    ord("I"): lambda m: m.push_line_number(int),
    ord("L"): lambda m: m.push_line_number(int, "L"),
    ord("J"): lambda m: m.push(m.number(4, signed=True)),
    ord("K"): lambda m: m.push(m.number(1)),
    ord("M"): lambda m: m.push(m.number(2)),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    0x8A: lambda m: m.push_long(1),
    0x8B: lambda m: m.push_long(4),
    ord("S"): Machine.push_quoted,
    ord("V"): lambda m: m.push(m.line("raw_unicode_escape")),
    ord("T"): lambda m: m.push_python2_text(4, signed=True),
    ord("U"): lambda m: m.push_python2_text(1, signed=False),
    ord("X"): lambda m: m.push(m.text(m.take(m.number(4)))),
    0x8C: lambda m: m.push(m.text(m.take(m.number(1)))),
    0x8D: lambda m: m.push(m.text(m.take(m.number(8)))),
    ord("B"): lambda m: m.push_bytes(4),
    ord("C"): lambda m: m.push_bytes(1),
    0x8E: lambda m: m.push_bytes(8),
    0x96: lambda m: m.push_bytes(8, bytearray),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    0x85: lambda m: m.push_tuple(1),
    0x86: lambda m: m.push_tuple(2),
    0x87: lambda m: m.push_tuple(3),
    ord("]"): lambda m: m.push([]),
    ord("l"): lambda m: m.push(m.pop_mark()),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.pop_mark()),
    ord("}"): lambda m: m.push({}),
    ord("d"): lambda m: m.push(m.fill({}, m.pop_mark())),
    ord("s"): Machine.set_item,
    ord("u"): Machine.set_marked_items,
    0x8F: Machine.push_set,
    0x90: Machine.add_marked_items,
    0x91: Machine.push_frozenset,
    ord("p"): lambda m: m.remember(m.line_index()),
    ord("q"): lambda m: m.remember(m.number(1)),
    ord("r"): lambda m: m.remember(m.number(4)),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("g"): lambda m: m.recall(m.line_index()),
    ord("h"): lambda m: m.recall(m.number(1)),
    ord("j"): lambda m: m.recall(m.number(4)),
    ord("c"): Machine.push_global,
    0x93: Machine.push_stack_global,
    ord("i"): Machine.new_named,
    ord("o"): Machine.new_marked,
    ord("R"): Machine.reduce,
    0x81: Machine.reduce,
    0x92: Machine.new_with_keywords,
    ord("b"): Machine.build,
    ord("P"): lambda m: m.push_persistent(m.line()),
    ord("Q"): lambda m: m.push_persistent(m.pop()),
    0x80: Machine.check_protocol,
    0x95: Machine.check_frame,
    0x82: Machine.refuse_extension,
    0x83: Machine.refuse_extension,
    0x84: Machine.refuse_extension,
    0x97: Machine.refuse_buffer,
    0x98: Machine.refuse_buffer,
}


def read_pickle(data: memoryview, reading: Reading, allow: Allowed) -> Any:
    """Read a file that is one pickle and nothing else.

    Args:
        data: the file.
        reading: the file, for messages and limits.
        allow: handlers of the (module, name) pairs that may be named.

    Returns:
        The finished value (see ``graph.finish``).

    Raises:
        UserError: the file is no such pickle, is damaged, names something else, or bytes follow the pickle.
    """
    root, end = Machine(data, reading, allow).run()
    if end != len(data):
        raise reading.error(f"{len(data) - end:,} bytes follow the pickle, which ends at byte {end:,}: it is damaged")
    return finish(root, reading)
