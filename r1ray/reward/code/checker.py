"""Problems with more than one correct output: a program of the dataset decides (the form of Open-R1's Codeforces).

It is a Python program with the names of three files as arguments: the input, an expected output and the output in question. It
prints 1 for a correct one. It runs after the model's program has ended, and sees only that program's output.
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
"""Files in memory, because there may be no folder that the checker may write to."""
LIMITS = Limits(cpu_s=10.0, wall_s=30.0, output_bytes=1 << 16)


class Checker:
    """The checker of one problem, which has at least one expected output.

    Raises:
        ValueError: it does not accept the expected output itself.
    """

    def __init__(self, code: str, sandbox: Runner, *, given: str, expected: str) -> None:
        self._code, self._sandbox = code, sandbox
        if self.accepts(given, expected, expected.encode()) is False:
            raise ValueError("the checker does not accept the expected output of the first test")

    def accepts(self, given: str, expected: str, written: bytes) -> bool | None:
        """None when the sandbox failed. An output on which the checker fails is not accepted."""
        files = [given, expected, written.decode(errors="replace")]
        stdin = json.dumps({"checker": self._code, "files": files}).encode()
        result = self._sandbox.run(Program(code=RUN, stdin=stdin, limits=LIMITS))
        if result.status == "sandbox_error":
            return None
        return result.status == "ok" and result.stdout.strip() in (b"1", b"1.0")
