"""C++ programs, honest and hostile, in one tier of the sandbox. To run it as another user (see `attack_suite`):

    setpriv --reuid 65534 --regid 65534 --clear-groups /usr/bin/python3 tests/integration/cpp_suite.py T2

A program is compiled once and its standard input selects what it does, so that all of this takes seconds instead of minutes.
"""

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import attack_suite

from r1ray.sandbox.base import Limits, Program, RunResult
from r1ray.sandbox.pool import Sandbox

SECRET = "s3cret-4b1d"
QUICK = Limits(cpu_s=1.0, wall_s=30.0, memory_bytes=128 << 20, output_bytes=1 << 20, file_bytes=1 << 20)

HONEST = r"""
#include <bits/stdc++.h>
using namespace std;
static int deep(int n) { volatile char room[100] = {1}; return n ? deep(n - 1) + room[0] : 0; }
int main() {
    ios::sync_with_stdio(false);
    cin.tie(nullptr);
    string what;
    cin >> what;
    if (what == "sum") {
        vector<long long> numbers(istream_iterator<long long>(cin), {});
        cout << accumulate(numbers.begin(), numbers.end(), 0LL) << endl;
    } else if (what == "catch") {
        try { vector<int>().at(1); } catch (const out_of_range &error) { cout << "caught\n"; }
        cerr << "said\n";
    } else if (what == "deep") {
        cout << deep(600000) << "\n";
    } else if (what == "thread") {
        atomic<int> count{0};
        vector<thread> threads;
        for (int i = 0; i < 8; i++) threads.emplace_back([&] { count++; });
        for (auto &thread : threads) thread.join();
        cout << count << "\n";
    } else if (what == "exit") {
        return 3;
    } else if (what == "throw") {
        throw runtime_error("not caught");
    }
}
"""
SCANF = r"""
#include <cstdio>
int main() { int a; double b; if (scanf("%d %lf", &a, &b) == 2) printf("%.3f\n", a * b); }
"""
TASKS = {
    "sum 1 2 3000000000": (HONEST, "ok", b"3000000003\n"),
    "3 0.5": (SCANF, "ok", b"1.500\n"),
    "catch": (HONEST, "ok", b"caught\n"),
    "deep": (HONEST, "ok", b"600000\n"),
    "thread": (HONEST, "ok", b"8\n"),
    "exit": (HONEST, "runtime_error", b""),
    "throw": (HONEST, "runtime_error", b""),
}
"""{standard input: (honest program, status, standard output)}."""

HOSTILE = r"""
#include <bits/stdc++.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <unistd.h>
using namespace std;
static char *self[] = {(char *)"again", nullptr}, *none[] = {nullptr};
static void in(bool through, string what) { if (through) cout << what << endl; }
static bool readable(string path) {
    char c;
    int fd = open(path.c_str(), O_RDONLY);
    return fd >= 0 && read(fd, &c, 1) > 0;
}
// fd 4 is the one that the filter lets be executed.
static void execute(int fd, const char *path) {
    if (fd >= 0) dup2(fd, 4);
    syscall(SYS_execveat, 4, path, self, none, AT_EMPTY_PATH);
    syscall(SYS_execveat, 5, path, self, none, AT_EMPTY_PATH);
    syscall(SYS_execveat, AT_FDCWD, path, self, none, 0);
    execve(path, self, none);
}
static void walls(string secret) {
    for (int fd = 3; fd < 64; fd++) in(fcntl(fd, F_GETFD) >= 0, "descriptor " + to_string(fd));
    string parent = "/proc/" + to_string(getppid());
    for (string path : {secret, "/etc/passwd"s, "/etc/hostname"s, "/usr/bin/env"s, "/usr/include/stdio.h"s})
        in(readable(path), "read " + path);
    for (string path : {"/environ", "/mem", "/fd/0", "/fd/1"}) in(readable(parent + path), "read " + path + " of its parent");
    if (DIR *folder = opendir("/usr")) in(readdir(folder) && readdir(folder) && readdir(folder), "list /usr");
    for (int kind : {AF_INET, AF_INET6, AF_UNIX, AF_NETLINK}) in(socket(kind, SOCK_STREAM, 0) >= 0, "socket");
    in(kill(getppid(), 0) == 0, "parent");
    in(kill(-1, 0) == 0, "everybody");
    in(syscall(SYS_tgkill, 1, 1, 0) == 0 && getpid() != 1, "signal another");
    in(ptrace(PTRACE_ATTACH, getppid(), 0, 0) == 0, "ptrace");
    in(unshare(CLONE_NEWUSER) == 0, "unshare");
    in(mount("none", "/tmp", "tmpfs", 0, "") == 0, "mount");
    in(syscall(SYS_memfd_create, "x", 0) >= 0, "memfd_create");
    in(syscall(SYS_process_vm_readv, getppid(), 0, 0, 0, 0, 0) >= 0, "process_vm_readv");
    in(chroot("/") == 0, "chroot");
    in(setsid() >= 0, "setsid");
    in(syscall(SYS_bpf, 0, 0, 0) >= 0, "bpf");
    rlimit more{RLIM_INFINITY, RLIM_INFINITY};
    for (auto limit : {RLIMIT_AS, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_NPROC}) in(setrlimit(limit, &more) == 0, "raise a limit");
    in(setuid(0) == 0 && getuid() == 0 && readable("/etc/shadow"), "root");
    in(!!getenv("PATH") || !!getenv("R1RAY_CANARY") || environ[0], "an environment");
    in(open("/usr/r1ray_was_here", O_CREAT | O_WRONLY, 0600) >= 0, "write /usr");
    in(chmod(secret.c_str(), 0777) == 0 || truncate(secret.c_str(), 0) == 0 || unlink(secret.c_str()) == 0, "change a file");
    pid_t pid;
    if (fork() >= 0) { cout << "fork" << endl; _exit(0); }
    if (vfork() >= 0) { write(1, "vfork\n", 6); _exit(0); }
    in(posix_spawn(&pid, "/usr/bin/true", nullptr, nullptr, self, none) == 0, "spawn");
    in(system("true") == 0, "system");
    // What it executed would say so, if it is this program, or say nothing more.
    execute(open("/usr/bin/true", O_RDONLY), "");
    execute(open("/usr/bin/true", O_PATH), "");
    execute(open("/usr/bin", O_PATH), "true");
    execute(-1, "/usr/bin/true");
    execute(-1, "/lib64/ld-linux-x86-64.so.2");
    for (string copy : {"/tmp/copy", "/dev/shm/copy"}) {
        ifstream from("/proc/self/exe", ios::binary);
        ofstream(copy, ios::binary) << from.rdbuf();
        chmod(copy.c_str(), 0755);
        execute(open(copy.c_str(), O_RDONLY), "");
        execute(-1, copy.c_str());
    }
    cout << "whole" << endl;
}
static void files() {
    long written = 0;
    string block(1 << 16, 'x');
    signal(SIGXFSZ, SIG_IGN);
    for (string folder : {"/tmp/", "/dev/shm/", "/", "/dev/", "/var/tmp/"})
        for (int n = 0; n < 200; n++) {
            int fd = open((folder + "f" + to_string(n)).c_str(), O_CREAT | O_WRONLY, 0600);
            if (fd < 0) break;
            for (long more; (more = write(fd, block.data(), block.size())) > 0;) written += more;
            close(fd);
        }
    cout << written << endl;
}
static int down(int n) { volatile char room[1000] = {1}; return down(n + 1) + room[0]; }
int main(int, char **argv) {
    if (string(argv[0]) == "again") { cout << "executed" << endl; return 0; }
    string what, argument;
    cin >> what >> argument;
    if (what == "walls") walls(argument);
    if (what == "files") files();
    if (what == "cpu") for (volatile long i = 0;; i++);
    if (what == "sleep") for (;;) sleep(60);
    if (what == "memory") for (;;) memset(new char[1 << 20], 1, 1 << 20);
    if (what == "map") in(mmap(nullptr, 1 << 28, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED, "mapped");
    if (what == "flood") for (;;) puts("a line and another and another");
    if (what == "complaint") for (;;) fputs("a line and another and another", stderr);
    if (what == "down") return down(0);
    if (what == "threads") for (;;) thread([] { for (;;) sleep(60); }).detach();
}
"""
ENDS = {
    "cpu": "timeout",
    "sleep": "timeout",
    "memory": "memory",
    "flood": "output_limit",
    "complaint": "output_limit",
    "down": "runtime_error",
    "threads": "runtime_error",
}
"""{standard input of the hostile program: how it has to end}."""
REFUSED = ("compile_error",)


def bombs(secret: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """{name: (source that must not compile, how that may end)}; `secret` is a file that every user may read and write."""
    tenfold = "\n".join(f"#define M{n} {' '.join([f'M{n - 1}'] * 10)}" for n in range(1, 12))
    return {
        "an error": ("int main() { return x; }", REFUSED),
        "no text": ("\0\xff\n```", REFUSED),
        "a secret, included": (f'#include "{secret}"\nint main() {{}}', REFUSED),
        "a secret, assembled": (f'asm(".incbin \\"{secret}\\""); int main() {{}}', REFUSED),
        "a secret, as assembler": (f'asm(".include \\"{secret}\\""); int main() {{}}', REFUSED),
        "the environment": ('#include "/proc/self/environ"\nint main() {}', ("compile_error", "ok")),
        "users": ('#include "/etc/passwd"\nint main() {}', REFUSED),
        "no end of zeros": ('#include "/dev/zero"\nint main() {}', REFUSED),
        "no end of itself": ('#include "/dev/stdin"\nint main() {}', REFUSED),
        "its own output": ('#include "/proc/self/fd/1"\nint main() {}', REFUSED),
        "its own errors": ('asm(".include \\"/proc/self/fd/2\\""); int main() {}', REFUSED),
        "a large table": ("char x[1 << 28] = {1}; int main() {}", REFUSED),
        "a large section": ('asm(".fill 1000000000"); int main() {}', REFUSED),
        "no end of repetition": (
            'asm(".rept 1000000000\\n.ascii \\"abcdefgh\\"\\n.endr"); int main() {}',
            ("compile_error", "timeout"),
        ),
        "templates": (
            "template <class T> struct A { A<A<T>> a; }; A<int> a; int main() {}",
            ("compile_error", "timeout"),
        ),
        "macros": (f"#define M0 +1\n{tenfold}\nint main() {{ return 0 M11; }}", ("compile_error", "timeout")),
        "a loader of its own": (
            'asm(".section .interp,\\"a\\"\\n.string \\"/lib64/ld-linux-x86-64.so.2\\""); int main() {}',
            ("runtime_error",),
        ),
    }


def cpp(source: str, stdin: str = "", limits: Limits = QUICK) -> Program:
    return Program(code=source.encode(errors="replace"), stdin=stdin.encode(), language="cpp", limits=limits)


def impatient(sandbox: Sandbox) -> None:
    """From now on compilation gets less time than it may take."""
    tools = sandbox._compiler.tools
    sandbox._compiler.tools = [replace(tool, limits=replace(tool.limits, cpu_s=2.0, wall_s=20.0)) for tool in tools]


def faults(sandbox: Sandbox) -> list[str]:
    """The violations in how these ended; [] when there are none."""
    violations: list[str] = []

    def expect(good: bool, what: str, result: RunResult) -> None:
        if not good or SECRET.encode() in result.stdout + result.stderr:
            violations.append(
                f"{what}: {result.status} {result.reason} {result.stdout[-300:]!r} {result.stderr[-300:]!r}"
            )

    for stdin, (source, status, stdout) in TASKS.items():
        memory_bytes = 256 << 20 if stdin == "thread" else 1 << 30
        result = sandbox.run(cpp(source, stdin, replace(QUICK, memory_bytes=memory_bytes)))
        expect((result.status, result.stdout) == (status, stdout), stdin, result)
    for what, status in ENDS.items():
        result = sandbox.run(cpp(HOSTILE, what, replace(QUICK, wall_s=1.0) if what == "sleep" else QUICK))
        expect(result.status == status, what, result)
    result = sandbox.run(cpp(HOSTILE, "map"))
    expect((result.status, result.stdout) == ("ok", b""), "more memory than the limit", result)
    result = sandbox.run(cpp(HOSTILE, "files"))
    most = 4 * QUICK.file_bytes if sandbox.spec.tier != "T2" else 0
    expect(result.status == "ok" and int(result.stdout) <= most, "files", result)
    with tempfile.NamedTemporaryFile("w", dir="/tmp") as secret:
        secret.write(SECRET)
        secret.flush()
        os.fchmod(secret.fileno(), 0o666)
        result = sandbox.run(cpp(HOSTILE, f"walls {secret.name}"))
        expect((result.status, result.stdout) == ("ok", b"whole\n"), "walls", result)
        impatient(sandbox)
        for name, (source, statuses) in bombs(secret.name).items():
            result = sandbox.run(cpp(source))
            expect(result.status in statuses and len(result.stderr) <= 1 << 16, name, result)
        if Path(secret.name).read_text() != SECRET:
            violations.append("a file was changed")
    return violations


def main(tier: str) -> int:
    with Sandbox(attack_suite.spec_of(tier), slots=1) as sandbox:
        found = faults(sandbox)
    print(*found, sep="\n")
    print(f"{tier}, uid {os.getuid()}: {len(found)} violations")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
