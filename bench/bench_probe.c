/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * bench_probe.c - one flush and one round trip, both ends flushing: the least that any lag can be.
 *
 * Prints one JSON object; --help lists the options.
 *
 * Two processes on one disk, and a socket between them. Here a block is sent to the other, and
 * written and flushed at the same time; there it is written and flushed and then answered. Counted
 * is from sent to answered; nothing is encrypted, read or applied. Each end writes into a file of
 * zeros, as the log does. One block is under way at a time, at most so many a second.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "disk.h"
#include "hist.h"
#include "pace.h"
#include "usage.h"

#define FILE_BYTES (64u << 20)
#define BYTES_MAX (1u << 20)

struct probe {
    const char *dir;
    double rate, seconds;
    size_t bytes;
    struct hist hist;
};
struct file {
    int fd;
    off_t at;
    uint8_t *data; /* aligned */
    size_t bytes;
};

_Noreturn static void fail(const char *what)
{
    perror(what);
    _exit(1);
}

static void file_open(struct file *f, const struct probe *p, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", p->dir, name);
    f->bytes = (p->bytes + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES * DISK_BLOCK_BYTES;
    f->data = aligned_alloc(DISK_BLOCK_BYTES, BYTES_MAX);
    f->fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (f->data == NULL || f->fd < 0)
        fail(path);
    memset(f->data, 0, BYTES_MAX);
    for (off_t at = 0; at < (off_t)FILE_BYTES; at += (off_t)BYTES_MAX)
        if (pwrite(f->fd, f->data, BYTES_MAX, at) != (ssize_t)BYTES_MAX)
            fail(path);
    if (fsync(f->fd) != 0 || fcntl(f->fd, F_SETFL, O_DIRECT) != 0)
        fail(path);
    memset(f->data, 0x5a, BYTES_MAX);
}

static void file_write(struct file *f)
{
    if (f->at + (off_t)f->bytes > (off_t)FILE_BYTES)
        f->at = 0;
    if (pwrite(f->fd, f->data, f->bytes, f->at) != (ssize_t)f->bytes || fdatasync(f->fd) != 0)
        fail("write");
    f->at += (off_t)f->bytes;
}

static bool receive(int fd, void *to, size_t len)
{
    return recv(fd, to, len, MSG_WAITALL) == (ssize_t)len;
}

_Noreturn static void other_end(const struct probe *p, int fd)
{
    struct file f = {0};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    file_open(&f, p, "there");
    if (send(fd, "r", 1, 0) != 1) /* ready */
        _exit(1);
    while (receive(fd, f.data, p->bytes)) {
        file_write(&f);
        if (send(fd, "a", 1, 0) != 1)
            break;
    }
    _exit(0);
}

struct own_end {
    const struct probe *p;
    pthread_barrier_t begin, end;
    bool stop;
};

static void *flush_here(void *arg)
{
    struct own_end *o = arg;
    struct file f = {0};

    file_open(&f, o->p, "here");
    for (;;) {
        pthread_barrier_wait(&o->begin);
        if (o->stop)
            return NULL;
        file_write(&f);
        pthread_barrier_wait(&o->end);
    }
}

static void await_due(struct pace *pace, int64_t *duep)
{
    for (;;) {
        int64_t now = env_mono_ns(env_real()), wait = pace_wait_ns(pace, now);
        struct timespec ts = {wait / 1000000000, wait % 1000000000};

        if (pace_take(pace, now, duep))
            return;
        nanosleep(&ts, NULL);
    }
}

static void run(struct probe *p, int fd)
{
    struct pace pace = {.per_second = p->rate};
    struct own_end o = {.p = p};
    uint8_t *block = calloc(1, p->bytes), answer;
    int64_t end, due, sent;
    pthread_t thread;

    pthread_barrier_init(&o.begin, NULL, 2);
    pthread_barrier_init(&o.end, NULL, 2);
    if (block == NULL || pthread_create(&thread, NULL, flush_here, &o) != 0 ||
        !receive(fd, &answer, 1))
        fail("start");
    pace.start_ns = env_mono_ns(env_real());
    end = pace.start_ns + (int64_t)(p->seconds * 1e9);
    for (await_due(&pace, &due); due < end; await_due(&pace, &due)) {
        sent = env_mono_ns(env_real());
        if (sent > end)
            break;
        pthread_barrier_wait(&o.begin);
        if (send(fd, block, p->bytes, 0) != (ssize_t)p->bytes || !receive(fd, &answer, 1))
            fail("the other end");
        hist_add(&p->hist, env_mono_ns(env_real()) - sent);
        pthread_barrier_wait(&o.end);
    }
    o.stop = true;
    pthread_barrier_wait(&o.begin);
    pthread_join(thread, NULL);
    free(block);
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"dir", required_argument, NULL, 'd'},   {"rate", required_argument, NULL, 'r'},
        {"bytes", required_argument, NULL, 'b'}, {"seconds", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0}};
    static const char usage[] =
        "Usage: bench_probe --dir=DIR [options]\n"
        "\n"
        "A block that is flushed at both ends of a socket. Prints one JSON object.\n"
        "\n"
        "  --dir=DIR              where the two files lie\n"
        "  --rate=N               blocks a second, at most (1000)\n"
        "  --bytes=N              of a block (4096, at most 1048576)\n"
        "  --seconds=S            measured (2)\n"
        "  --help                 this text\n";
    static struct probe p = {.rate = 1000, .seconds = 2, .bytes = 4096};
    int fds[2], c;
    pid_t child;

    while ((c = usage_option(argc, argv, longs, 0, usage)) != -1) {
        if (c == 'd')
            p.dir = optarg;
        else if (c == 'r')
            p.rate = atof(optarg);
        else if (c == 'b')
            p.bytes = strtoul(optarg, NULL, 10);
        else if (c == 's')
            p.seconds = atof(optarg);
    }
    if (p.dir == NULL || p.rate <= 0 || p.bytes == 0 || p.bytes > BYTES_MAX || p.seconds <= 0)
        usage_fail("--dir is needed, and numbers that make sense");
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
        fail("socketpair");
    child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        close(fds[0]);
        other_end(&p, fds[1]);
    }
    close(fds[1]);
    run(&p, fds[0]);
    close(fds[0]);
    waitpid(child, NULL, 0);
    printf("{\"rate\": %.1f, \"done\": %llu, \"seconds\": %.3f, \"bytes\": %zu, \"answer\": ",
           (double)p.hist.count / p.seconds, (unsigned long long)p.hist.count, p.seconds, p.bytes);
    hist_json(&p.hist, stdout);
    printf("}\n");
    return 0;
}
