"""Run a command as in a container, without a container; a script for root:

    python3 tests/integration/container.py default|unconfined UID COMMAND...

default      an ordinary pod of Docker and Kubernetes: its capabilities, and a seccomp filter that refuses new namespaces and mounts
unconfined   the same capabilities without the filter, but parts of /proc are masked, so that the kernel refuses to mount a fresh
one
"""

import ctypes
import os
import platform
import struct
import sys

KEPT = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
"""Docker's capabilities: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot,
mknod, audit_write, setfcap."""
REFUSED = {
    "x86_64": (272, 308, 165, 166, 155, 321, 298, 323, 250),
    "aarch64": (97, 268, 40, 39, 41, 280, 241, 282, 219),
}
"""unshare, setns, mount, umount2, pivot_root, bpf, perf_event_open, userfaultfd, keyctl."""
CLONE, CLONE3 = {"x86_64": (56, 435), "aarch64": (220, 435)}[platform.machine()]
NEW_NAMESPACES = 0x7E020000
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
MS_PRIVATE, MS_REC, CLONE_NEWNS = 0x40000, 0x4000, 0x20000
PR_CAPBSET_DROP, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 24, 22, 2
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mask_proc() -> None:
    check(libc.unshare(CLONE_NEWNS))
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    for name in (b"/proc/acpi", b"/proc/scsi", b"/proc/fs", b"/proc/irq", b"/proc/bus"):
        if os.path.isdir(name):
            check(libc.mount(b"tmpfs", name, b"tmpfs", 1, None))


def refuse_namespaces() -> None:
    rows = [(LOAD, 0, 0, 0)]
    rows += [row for number in REFUSED[platform.machine()] for row in ((EQUAL, 0, 1, number), (RETURN, 0, 0, EPERM))]
    rows += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ENOSYS)]
    rows += [(EQUAL, 0, 3, CLONE), (LOAD, 0, 0, 16), (ANY_BIT, 0, 1, NEW_NAMESPACES), (RETURN, 0, 0, EPERM)]
    rows += [(RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))
    filter_ = struct.pack("<HxxxxxxQ", len(rows), ctypes.addressof(code))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(filter_), 0, 0))


def main(kind: str, uid: int, command: list[str]) -> None:
    if kind == "unconfined":
        mask_proc()
    else:
        refuse_namespaces()
    for capability in range(64):
        if capability not in KEPT:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    os.execve(command[0], command, {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
