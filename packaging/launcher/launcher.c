// The launcher: what a runtime executes as `flannel` or `host-local`.
//
// Hands one call to the resident process (docs/resident.md has the protocol) and relays its answer.
// Where there is none, and whenever the answer does not come, it becomes the frozen plugin (frozen.c)
// with the same environment and stdin: a resident process that is missing costs time, nothing else.
// Knows sockets and descriptors. Must not know: confs, results, or what a verb does.
#define _GNU_SOURCE
#include "failure.h"
#include "frozen.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef ANSWER_MS
#define ANSWER_MS 90000 // longer than any wait that a conf can ask for, delegates apart
#endif
enum { VERSION = 1, CONNECT_MS = 50, GREETING_MS = 1000, STILL_THERE = 256 };

#ifndef SERVED
#define SERVED "ADD\0DEL\0CHECK\0GC\0STATUS\0" // VERSION is not: it does not wait for the end of stdin
#endif
#ifndef PROGRAM
#define PROGRAM "flannel" // or "host-local"
#endif
// By these bytes `install` knows a file as ours.
const char mark[] = "CNI_FLANNEL_LAUNCHER=" PROGRAM;
static const char *program = PROGRAM; // or "bridge", if that is our name

struct header { char magic[4]; uint32_t version, strings; };
struct greeting { char magic[4]; uint32_t version; char call[56]; };
struct reply { uint32_t status, output, notes; };

static char request[1 << 20]; // the header, then strings: our name, and the environment
static size_t size = sizeof(struct header);
static volatile sig_atomic_t interrupted;
static sigset_t callers_mask;
static void note_interrupt(int number) { interrupted = number; }

// A caller may have closed some of 0, 1 and 2. No file of ours may get such a number: a result would
// be written into it. Without /dev/null a directory does, of which nobody can read or write.
static void fill_standard_streams(void) {
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) open("/", O_RDONLY);
}

static bool write_all(int fd, const char *data, size_t length) {
    for (ssize_t written; length > 0; data += written, length -= written)
        if ((written = write(fd, data, length)) < 0) return false; // no signal comes between
    return true;
}

// Stdin up to its end as a file in memory, which can be read again; -1.
static int copy_of_stdin(void) {
    static char chunk[65536];
    int copy = memfd_create("stdin", MFD_CLOEXEC);
    ssize_t got = -1;
    while (copy >= 0 && (got = read(0, chunk, sizeof chunk)) > 0)
        if (!write_all(copy, chunk, got)) fail(IO_FAILURE, "keep the conf in memory", strerror(errno)); // a limit
    return got == 0 ? copy : -1;
}

// Become the frozen plugin; does not return. An interrupted call ends here, as that would.
static void fall_back(int argc, char **argv, int stdin_copy) {
    signal(SIGTERM, SIG_DFL), signal(SIGINT, SIG_DFL), signal(SIGXFSZ, SIG_DFL);
    if (interrupted) raise(interrupted);
    sigprocmask(SIG_SETMASK, &callers_mask, NULL);
    if (stdin_copy >= 0 && (lseek(stdin_copy, 0, SEEK_SET) != 0 || dup2(stdin_copy, 0) != 0))
        fail(IO_FAILURE, "put the conf back on stdin, which the resident process did not serve", strerror(errno));
    become_frozen(program, argc, argv);
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// Read so much. A signal becomes a half-close: the server takes back what it did, and says so.
static bool receive(int fd, void *data, size_t length, int64_t deadline) {
    while (length > 0) {
        if (interrupted) shutdown(fd, SHUT_WR);
        int64_t left = deadline - now_ms();
        struct timespec limit = {left / 1000, left % 1000 * 1000000};
        struct pollfd one = {fd, POLLIN, 0};
        int ready = left < 0 ? 0 : ppoll(&one, 1, &limit, &callers_mask);
        if (ready < 0 && errno == EINTR) continue;
        ssize_t got = ready > 0 ? read(fd, data, length) : 0;
        if (got <= 0) return false;
        data = (char *)data + got, length -= got;
    }
    return true;
}

// The request with descriptors: our own network namespace, stdin, and what CNI_NETNS leads to.
static bool send_request(int fd, const int *descriptors, int count) {
    union { char bytes[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } control = {0};
    struct iovec whole = {request, size};
    struct msghdr message = {.msg_iov = &whole, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = (socklen_t)CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET, rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = (socklen_t)CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), descriptors, count * sizeof(int));
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    for (size_t done = sent; sent > 0 && done < size; done += sent)
        sent = send(fd, request + done, size - done, MSG_NOSIGNAL);
    return sent > 0;
}

static const char *socket_path(void) {
    const char *path = getenv("CNI_FLANNEL_SOCKET");
    return path && *path ? path : "/run/cni-flannel/cni.sock";
}

static int connected(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {0, CONNECT_MS * 1000}, patience = {GREETING_MS / 1000, 0};
    struct ucred server;
    socklen_t length = sizeof server;
    if (snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path()) >= (int)sizeof address.sun_path)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0) return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) return -1;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &server, &length) != 0 || server.uid != 0) return -1;
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0 ? fd : -1;
}

// Let the resident process serve the call, and leave with its status. Returns if it did not.
static void ask(const char *verb, const char *netns, int stdin_copy) {
    int descriptors[3] = {open("/proc/self/ns/net", O_PATH | O_CLOEXEC), stdin_copy, -1}, count = 2, fd, whole;
    struct greeting greeting;
    struct reply reply;
    bool has_pod = netns && *netns && strchr("ADC", *verb); // ADD, DEL, CHECK
    if (has_pod && (descriptors[2] = open(netns, O_PATH | O_CLOEXEC)) >= 0) count = 3;
    // Gone is fine for DEL. Anything else is told best by who looks with our own eyes.
    else if (has_pod && (*verb != 'D' || (errno != ENOENT && errno != ENOTDIR))) return;
    if (descriptors[0] < 0 || (fd = connected()) < 0 || !send_request(fd, descriptors, count)) return;
    if (!receive(fd, &greeting, sizeof greeting, now_ms() + GREETING_MS)) return;
    if (memcmp(greeting.magic, "CNIr", 4) || greeting.version != VERSION || greeting.call[55]) return;
    // By this the frozen executable knows as this call's own what has been done of it already.
    if (setenv("CNI_FLANNEL_CALL", greeting.call, 1) != 0) return;
    int64_t deadline = now_ms() + ANSWER_MS;
    while ((whole = receive(fd, &reply, sizeof reply, deadline)) && reply.status == STILL_THERE)
        send(fd, "", 1, MSG_NOSIGNAL); // the server asked whether we still wait
    size_t length = (size_t)reply.output + reply.notes;
    char *output = whole ? malloc(length + 1) : NULL;
    if (!output || !receive(fd, output, length, deadline)) return;
    write_all(2, output + reply.output, reply.notes);
    if (write_all(1, output, reply.output)) _exit(reply.status);
    dprintf(2, "error writing to stdout: errno %d\n", errno), _exit(1);
}

static bool append(const char *text) {
    size_t start = size, length = strlen(text) + 1;
    if (length > sizeof request - start) return false;
    size += length;
    return memcpy(request + start, text, length) != NULL;
}

// Whether the resident process can be asked. Not by a person, who gives no verb, nor with an
// environment that is too large.
static bool is_served(const char *verb) {
    struct header header = {"CNIr", VERSION, 0};
    const char *known = SERVED;
    while (*known && (!verb || strcmp(known, verb) != 0)) known += strlen(known) + 1;
    bool fits = *known && access(socket_path(), F_OK) == 0 && append(program);
    for (char **one = environ; fits && *one; one++) fits = append(*one);
    header.strings = (uint32_t)(size - sizeof header);
    memcpy(request, &header, sizeof header);
    return fits;
}

int main(int argc, char **argv) {
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL, *verb = getenv("CNI_COMMAND");
    const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
    struct sigaction note = {.sa_handler = note_interrupt}; // without SA_RESTART
    int stdin_copy = -1;
    if (strcmp(name, "bridge") == 0 && strcmp(program, "flannel") == 0) program = "bridge";
    signal(SIGXFSZ, SIG_IGN); // a file that may not grow is an error, which can be told
    fill_standard_streams(), sigprocmask(SIG_BLOCK, NULL, &callers_mask);
    sigemptyset(&note.sa_mask), sigaddset(&note.sa_mask, SIGTERM), sigaddset(&note.sa_mask, SIGINT);
    if (argc <= 1 && is_served(verb) && (stdin_copy = copy_of_stdin()) >= 0) {
        sigprocmask(SIG_BLOCK, &note.sa_mask, NULL); // they come while we wait, and only then
        sigaction(SIGTERM, &note, NULL), sigaction(SIGINT, &note, NULL);
        ask(verb, getenv("CNI_NETNS"), stdin_copy);
    }
    fall_back(argc, argv, stdin_copy);
}
