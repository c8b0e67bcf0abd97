/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk_posix.h - the calls on names and descriptors that the disks on real files share.
 *
 * Private to wal/base. All functions may be called by any thread.
 */
#ifndef LOCKSTEP_DISK_POSIX_H
#define LOCKSTEP_DISK_POSIX_H

#include "disk.h"

/** Open as the DISK_ flags say. *fdp is the caller's to close. */
CHECKED int posix_open(const char *path, int flags, int *fdp, struct err *err);
CHECKED int posix_pread(int fd, const char *path, void *data, size_t len, uint64_t off,
                        size_t *gotp, struct err *err);
CHECKED int posix_pwrite(int fd, const char *path, const void *data, size_t len, uint64_t off,
                         struct err *err);
CHECKED int posix_size(int fd, const char *path, uint64_t *bytesp, struct err *err);
CHECKED int posix_truncate(int fd, const char *path, uint64_t bytes, struct err *err);
CHECKED int posix_rename(struct disk *d, const char *from, const char *to, struct err *err);
CHECKED int posix_remove(struct disk *d, const char *path, struct err *err);
CHECKED int posix_mkdir(struct disk *d, const char *path, struct err *err);
CHECKED int posix_exists(struct disk *d, const char *path, bool *yesp, struct err *err);
CHECKED int posix_list(struct disk *d, const char *dir, void (*each)(void *arg, const char *name),
                       void *arg, struct err *err);
CHECKED int posix_sync_dir(struct disk *d, const char *dir, struct err *err);
CHECKED int posix_free_bytes(struct disk *d, const char *path, uint64_t *bytesp, struct err *err);

#endif
