// The frozen plugin, which the launcher becomes: its folder is found, held, looked over, and started.
//
// DIR/.cni-flannel/current, DIR being where the launcher lies, is a symbolic link to the folder of one build.
// An installation swaps it by rename(2). Whoever uses a folder holds a shared flock(2) on it, through execve
// and up to its end; `install` removes one only under the exclusive lock, which tells of processes in every
// PID namespace. Nothing here waits for a lock: a folder under the exclusive one is on its way out, and
// `current` leads elsewhere.
//
// What a folder has to have for every launcher, of earlier and later builds too (docs/decisions/0072):
//     ld.so, python       the loader, and the program that it is given: python LOCK FOLDER PROGRAM KEPT [VARIABLE...]
//                         [ARGUMENT...], KEPT being the number of VARIABLEs
//     needs               a line "SIZE NAME" for each file without which there is no first line of Python
#define _GNU_SOURCE
#include "frozen.h"
#include "failure.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ATTEMPTS = 100, ATTEMPT_MS = 2, NEEDS = 4096, MIB = 1 << 20 };

// Below these the loader or the interpreter ends before it can say anything. As measured, with room.
static const struct { int resource; rlim_t least; const char *name; } limits[] = {
    {RLIMIT_NOFILE, 32, "open files (RLIMIT_NOFILE)"},
    {RLIMIT_AS, 96 * MIB, "address space (RLIMIT_AS)"},
    {RLIMIT_DATA, 32 * MIB, "data (RLIMIT_DATA)"},
    {RLIMIT_STACK, 1 * MIB, "stack (RLIMIT_STACK)"},
};

static char base[PATH_MAX];              // DIR/.cni-flannel/
static char folder[2 * PATH_MAX];        // of the build
static char trouble[3 * PATH_MAX] = "?"; // what the last attempt came to

// In no words that a runtime takes for "the pod is gone", as containerd does those for ENOENT.
static const char *reason(void) { return errno == ENOENT ? "missing" : strerror(errno); }

// Raise what may be raised; the plugins of Go do so too.
static void look_at_limits(void) {
    struct rlimit found;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        if (getrlimit(limits[i].resource, &found) != 0 || found.rlim_cur >= limits[i].least) continue;
        found.rlim_cur = limits[i].least;
        if (found.rlim_max >= limits[i].least && setrlimit(limits[i].resource, &found) == 0) continue;
        snprintf(trouble, sizeof trouble, "the limit of %s is %llu, and a call needs %llu", limits[i].name,
                 (unsigned long long)found.rlim_max, (unsigned long long)limits[i].least);
        fail(TRY_AGAIN, trouble, "it comes from whoever started the plugin: raise it there (for a service: Limit... in its unit)");
    }
}

// Without /proc, by the path that was executed.
static bool find_base(void) {
    char path[PATH_MAX] = "", *slash;
    if (readlink("/proc/self/exe", path, sizeof path - 1) < 0) {
        const char *executed = (const char *)getauxval(AT_EXECFN);
        if (!executed || !realpath(executed, path)) return false;
    }
    if (!(slash = strrchr(path, '/'))) return false;
    *slash = '\0';
    return snprintf(base, sizeof base, "%s/.cni-flannel/", path) < (int)sizeof base;
}

// Whether every file is there that a start needs, whole.
static bool is_whole(int directory) {
    char list[NEEDS], *line = list, *name;
    struct stat found;
    int fd = openat(directory, "needs", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, list, sizeof list - 1);
    if (fd >= 0) close(fd);
    list[length < 0 ? 0 : length] = '\0';
    for (; *line; line = name + strlen(name) + 1) {
        long long size = strtoll(line, &name, 10);
        char *end = strchr(name++, '\n');
        if (!end) break;
        *end = '\0';
        if (fstatat(directory, name, &found, 0) == 0 && found.st_size == size) continue;
        snprintf(trouble, sizeof trouble, "%s/%s is missing or damaged", folder, name);
        return false;
    }
    if (line == list || *line) snprintf(trouble, sizeof trouble, "%s/needs is missing or damaged", folder);
    return line != list && !*line;
}

// A descriptor of the folder that `current` leads to, with our lock on it; -1.
static int hold_folder(bool without_lock) {
    char link[PATH_MAX], name[NAME_MAX + 1] = "";
    snprintf(link, sizeof link, "%.4000scurrent", base);
    if (readlink(link, name, sizeof name - 1) < 0) {
        snprintf(trouble, sizeof trouble, "%s: %s", link, reason());
        return -1;
    }
    snprintf(folder, sizeof folder, "%s%s", base, name);
    int fd = open(folder, O_RDONLY | O_DIRECTORY); // inherited: the lock goes with it
    if (fd < 0) snprintf(trouble, sizeof trouble, "%s: %s", folder, reason());
    bool gone = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK && !without_lock;
    if (fd >= 0 && !gone && is_whole(fd)) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

// The loader looks at these variables. It shall not; the plugin's delegates shall.
static bool is_the_loaders(const char *variable) {
    return strncmp(variable, "LD_", 3) == 0 || strncmp(variable, "GLIBC_TUNABLES=", 15) == 0;
}

static void start(int lock, const char *program, int argc, char **argv) {
    char loader[sizeof folder + 8], python[sizeof folder + 8], number[16], kept[16], **variable, **left;
    size_t count = 0;
    for (variable = environ; *variable; variable++) count += is_the_loaders(*variable);
    const char **words = calloc((size_t)argc + count + 8, sizeof *words), **next = words;
    if (!words) return;
    snprintf(loader, sizeof loader, "%s/ld.so", folder), snprintf(python, sizeof python, "%s/python", folder);
    snprintf(number, sizeof number, "%d", lock), snprintf(kept, sizeof kept, "%zu", count);
    *next++ = argc > 0 ? argv[0] : program; // as `ps` shows it; the loader itself does not look
    *next++ = python, *next++ = number, *next++ = folder, *next++ = program, *next++ = kept;
    for (left = variable = environ; *variable; variable++)
        *(is_the_loaders(*variable) ? next++ : (const char **)left++) = *variable;
    *left = NULL;
    for (int i = 1; i < argc; i++) *next++ = argv[i];
    execv(loader, (char **)words);
    snprintf(trouble, sizeof trouble, "%s: %s", loader, reason());
}

void become_frozen(const char *program, int argc, char **argv) {
    struct timespec pause = {0, ATTEMPT_MS * 1000000};
    int lock = -1;
    look_at_limits();
    if (!find_base())
        fail(IO_FAILURE, "find the folder that the plugin lies in: there is neither /proc nor a path to it",
             "mount /proc, or execute the plugin by its absolute path");
    for (int i = 0; lock < 0 && i < ATTEMPTS; i++) {
        lock = hold_folder(i == ATTEMPTS - 1);
        if (lock < 0) nanosleep(&pause, NULL);
    }
    if (lock >= 0) start(lock, program, argc, argv);
    char message[sizeof trouble + 64];
    snprintf(message, sizeof message, "start the frozen %s: %s", program, trouble);
    fail(IO_FAILURE, message,
         "the plugin is a small program and the folder .cni-flannel beside it, and cannot do without: install it again");
}
