"""Running programs that a model has written.

Covered, in every tier: a program reads the files of the system and of the interpreter, its own code and its standard input, and
nothing else; it writes nowhere that lasts; it starts no process and no other program; it opens no socket that leads anywhere; it
sends signals to nobody; its time, memory, output and files are limited, and it is gone when it has reached a limit, when the worker
is gone, or when it ends. It never learns anything of the expected output: that is compared outside (`r1ray.reward.code`).

C++ programs too, each of which is a static binary: it reads nothing of the system and cannot execute anything. Whatever compiles
them is confined as Python programs are (`r1ray.sandbox.cpp`).

Not covered: mistakes in the kernel, what can be guessed from the timing of neighbours, and that a program may pretend to have ended
in another way than it did (a wrong answer may look like a lack of memory). Who expects malice beyond a model's uses pods with a
kernel of their own (gVisor, Kata) besides. With `sandbox.url` a service runs the programs: what they may do there is its affair.
"""
