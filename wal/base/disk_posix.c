/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk_posix.c - names and descriptors of real files, for the production disk and the crash-test
 * disk.
 *
 * Invariant: an interrupted or short transfer is carried on until it is whole or has failed;
 * nothing retries a failed sync.
 */
#include "disk_posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static enum err_code code_of(int sys)
{
    switch (sys) {
    case ENOENT:
        return ERR_NOTFOUND;
    case EEXIST:
    case ENOTEMPTY:
        return ERR_EXISTS;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ENOSPC:
    case EDQUOT:
        return ERR_NOSPC;
    default:
        return ERR_IO;
    }
}

static int fail(struct err *err, const char *what, const char *path)
{
    int sys = errno;

    return err_set(err, code_of(sys), sys, "%s %s", what, path);
}

int posix_open(const char *path, int flags, int *fdp, struct err *err)
{
    int how = O_CLOEXEC;

    *fdp = -1;
    if (flags & DISK_DIRECTORY)
        how |= O_RDONLY | O_DIRECTORY;
    else
        how |= (flags & (DISK_WRITE | DISK_CREATE)) ? O_RDWR : O_RDONLY;
    if (flags & DISK_CREATE)
        how |= O_CREAT;
    if (flags & DISK_EXCLUSIVE)
        how |= O_EXCL;
    if (flags & DISK_DIRECT) {
        *fdp = open(path, how | O_DIRECT, 0600);
        if (*fdp >= 0)
            return 0;
        /* EINVAL: no direct I/O on this file system (tmpfs). With O_EXCL the kernel may already
         * have made the file, so the second try must not ask for that again. */
        if (errno != EINVAL)
            return fail(err, "open", path);
        how &= ~O_EXCL;
    }
    *fdp = open(path, how, 0600);
    return *fdp < 0 ? fail(err, "open", path) : 0;
}

int posix_pread(int fd, const char *path, void *data, size_t len, uint64_t off, size_t *gotp,
                struct err *err)
{
    size_t got = 0;

    *gotp = 0;
    while (got < len) {
        ssize_t n = pread(fd, (uint8_t *)data + got, len - got, (off_t)(off + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(err, "read", path);
        if (n == 0)
            break;
        got += (size_t)n;
        /* A part is the end of the file, or a file system that gives parts: told apart by the size,
         * since direct I/O can't be asked to go on off a block. */
        if (got < len) {
            uint64_t size;
            if (posix_size(fd, path, &size, err) != 0)
                return -1;
            if (off + got >= size)
                break;
        }
    }
    *gotp = got;
    return 0;
}

int posix_pwrite(int fd, const char *path, const void *data, size_t len, uint64_t off,
                 struct err *err)
{
    size_t put = 0;

    while (put < len) {
        ssize_t n = pwrite(fd, (const uint8_t *)data + put, len - put, (off_t)(off + put));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(err, "write", path);
        if (n == 0)
            return err_set(err, ERR_IO, EIO, "write %s: no progress", path);
        put += (size_t)n;
    }
    return 0;
}

int posix_size(int fd, const char *path, uint64_t *bytesp, struct err *err)
{
    struct stat st;

    *bytesp = 0;
    if (fstat(fd, &st) != 0)
        return fail(err, "stat", path);
    *bytesp = (uint64_t)st.st_size;
    return 0;
}

int posix_truncate(int fd, const char *path, uint64_t bytes, struct err *err)
{
    return ftruncate(fd, (off_t)bytes) != 0 ? fail(err, "truncate", path) : 0;
}

int posix_rename(struct disk *d, const char *from, const char *to, struct err *err)
{
    (void)d;
    return rename(from, to) != 0 ? fail(err, "rename", from) : 0;
}

int posix_remove(struct disk *d, const char *path, struct err *err)
{
    (void)d;
    return remove(path) != 0 ? fail(err, "remove", path) : 0;
}

int posix_mkdir(struct disk *d, const char *path, struct err *err)
{
    (void)d;
    return mkdir(path, 0700) != 0 && errno != EEXIST ? fail(err, "make directory", path) : 0;
}

int posix_exists(struct disk *d, const char *path, bool *yesp, struct err *err)
{
    struct stat st;

    (void)d;
    *yesp = lstat(path, &st) == 0;
    if (!*yesp && errno != ENOENT && errno != ENOTDIR)
        return fail(err, "stat", path);
    return 0;
}

int posix_list(struct disk *d, const char *dir, void (*each)(void *arg, const char *name),
               void *arg, struct err *err)
{
    DIR *handle = opendir(dir);
    struct dirent *ent;
    int sys;

    (void)d;
    if (handle == NULL)
        return fail(err, "open directory", dir);
    for (errno = 0; (ent = readdir(handle)) != NULL; errno = 0) {
        if (strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0)
            each(arg, ent->d_name);
    }
    sys = errno;
    closedir(handle);
    if (sys != 0)
        return err_set(err, ERR_IO, sys, "read directory %s", dir);
    return 0;
}

int posix_sync_dir(struct disk *d, const char *dir, struct err *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    (void)d;
    if (fd < 0)
        return fail(err, "open directory", dir);
    if (fsync(fd) != 0)
        rc = fail(err, "sync directory", dir);
    close(fd);
    return rc;
}

int posix_free_bytes(struct disk *d, const char *path, uint64_t *bytesp, struct err *err)
{
    struct statvfs st;

    (void)d;
    *bytesp = 0;
    if (statvfs(path, &st) != 0)
        return fail(err, "free space of", path);
    *bytesp = (uint64_t)st.f_bavail * st.f_frsize;
    return 0;
}
