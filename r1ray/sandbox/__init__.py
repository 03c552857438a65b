"""Runs programs that a model has written.

Covered, in every tier: a program can read only the files of the system and of the interpreter, its own code and its standard input.
It can write only to a temporary folder. It cannot start a process or execute another program, open a socket to anywhere, or send a
signal to another process. Its time, memory, output and files are limited, and it is killed at a limit and when the worker dies. It
never gets any part of the expected output: outputs are compared outside (`r1ray.reward.code`).

The same holds for C++ programs, each of which is a static binary: it cannot read any file of the system and cannot execute
anything. The tools that compile it are confined like Python programs (`r1ray.sandbox.cpp`).

Not covered: bugs in the kernel, information in the timing of other processes, and a program that pretends to have ended in another
way than it did (an incorrect answer can look like a lack of memory). Against deliberate attackers, also use pods with their own
kernel (gVisor, Kata). With `sandbox.url` a service runs the programs, and the service decides what they can do.
"""
