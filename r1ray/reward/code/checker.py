"""Problems with more than one right output: the dataset's own program says which are right (the form of Open-R1's Codeforces).

It is a Python program that opens the three files that it is given the names of: the input, an expected output and the output in
question. It prints 1 for a right one. It is run alone: the model's program has ended by then, and all that it left is text.
"""

import json

from r1ray.sandbox.base import Limits, Program, Runner

FILES = ("input.txt", "correct_output.txt", "solution_output.txt")
RUN = f"""
import builtins, io, json, os, sys
texts = json.loads(sys.stdin.read())
files = dict(zip({FILES!r}, texts["files"]))
of_the_system = open
def opened(file, mode="r", *rest, **named):
    name = file if isinstance(file, int) else os.fspath(file)
    if name not in files:
        return of_the_system(file, mode, *rest, **named)
    return io.BytesIO(files[name].encode()) if "b" in mode else io.StringIO(files[name], newline=None)
builtins.open = io.open = opened
sys.argv, sys.stdin = ["checker.py", *files], io.StringIO()
exec(compile(texts["checker"], "checker.py", "exec"), {{"__name__": "__main__"}})
""".encode()
"""There may be no folder that it may write to."""
LIMITS = Limits(cpu_s=10.0, wall_s=30.0, output_bytes=1 << 16)


class Checker:
    """Of one problem, which has one expected output at least.

    Raises:
        ValueError: it does not take the expected output itself for right.
    """

    def __init__(self, code: str, sandbox: Runner, *, given: str, expected: str) -> None:
        self._code, self._sandbox = code, sandbox
        if self.accepts(given, expected, expected.encode()) is False:
            raise ValueError("the checker does not accept the expected output of the first test")

    def accepts(self, given: str, expected: str, written: bytes) -> bool | None:
        """None when the sandbox failed. A checker that stumbles over an output has not accepted it."""
        files = [given, expected, written.decode(errors="replace")]
        stdin = json.dumps({"checker": self._code, "files": files}).encode()
        ended = self._sandbox.run(Program(code=RUN, stdin=stdin, limits=LIMITS))
        if ended.status == "sandbox_error":
            return None
        return ended.status == "ok" and ended.stdout.strip() in (b"1", b"1.0")
