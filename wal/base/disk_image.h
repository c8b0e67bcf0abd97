/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk_image.h - what the simulated disk holds: files, names, and what of both a power cut may
 * take.
 *
 * A file has two contents: durable, which survives a power cut, and live, which reads see. A block
 * that was written and not flushed is marked; a flush copies the marked blocks over, a power cut
 * keeps, drops or tears each. A change of a name (create, rename, remove) is durable when its
 * directory is synced, and not by a flush of the file; a power cut takes back any number of the
 * last changes of each directory.
 *
 * Invariant: durable is never longer than what was flushed or kept; marks lie within live. The
 * functions here are called with the image's lock held.
 */
#ifndef LOCKSTEP_DISK_IMAGE_H
#define LOCKSTEP_DISK_IMAGE_H

#include <pthread.h>

#include "disk.h"

struct bytes {
    uint8_t *data;
    uint64_t len, cap;
};

struct node { /* a file or a directory */
    struct node *next;
    struct node *twin; /* while the image is copied */
    char *path;
    bool directory;
    bool removed; /* the name is gone, open handles are not */
    unsigned handles;
    struct bytes live, durable;
    uint8_t *marks; /* one byte a block of live: written and not flushed */
    uint64_t marks_cap;
};

/* A change of a name that its directory was not synced after. It holds a handle of its nodes. */
struct change {
    struct change *next; /* the one before */
    enum { MADE, REMOVED, RENAMED } kind;
    char *dir;
    struct node *node;
    struct node *old; /* RENAMED: what had the name before, or NULL */
    char *from;       /* RENAMED */
};

struct disk_image {
    pthread_mutex_t lock;
    struct node *nodes;     /* newest first */
    struct node *ghosts;    /* removed, but open */
    struct change *changes; /* newest first */
    uint64_t rng;
    uint64_t epoch; /* power cuts and kills so far: handles of an older one are dead */
    uint64_t free_bytes;
    struct image_fault {
        uint64_t after; /* so many more do not fail */
        uint64_t times; /* then so many do; 0: all */
        int sys;        /* 0: none fails */
    } fault[DISK_FAULTS];
    void (*fault_hit)(void *arg, enum disk_fault f, int sys); /* NULL: nobody counts */
    void *fault_arg;
    bool held;        /* no fault for now */
    unsigned slow;    /* times as slow as ever; 0: as ever */
    bool slow_new;    /* no operation met that yet */
    bool space_new;   /* nobody asked since free_bytes was set */
    uint64_t busy_ns; /* of synchronous calls while it is slow, until it is taken */
    uint64_t cut_in;  /* the cut is taken at the change that makes this 0; 0: none is to come */
    struct disk_image *cut;
    void (*cut_hit)(void *arg);
    void *cut_arg;
};

uint64_t image_random(struct disk_image *im);
uint64_t image_blocks(uint64_t len);
/* What becomes longer is zero there; false: out of memory. Of one content; of live and its marks.
 */
bool bytes_resize(struct bytes *b, uint64_t len);
bool image_resize(struct node *n, uint64_t len);
/* Bytes from..to of a block of live are durable now; false: out of memory. */
bool image_keep(struct node *n, uint64_t block, uint64_t from, uint64_t to);
/* One unflushed block: all of it is kept, none of it, or some of its units. */
void image_settle_block(struct disk_image *im, struct node *n, uint64_t block);

struct node *image_find(struct disk_image *im, const char *path); /* NULL: none */
struct node *image_add(struct disk_image *im, const char *path, bool directory);
void image_drop_name(struct disk_image *im, struct node *n); /* the content goes with its handles */
bool image_move(struct disk_image *im, const struct node *n, const char *from, const char *to);
void image_put_handle(struct disk_image *im, struct node *n);
bool image_inside(const char *path, const char *dir, const char **restp);

void image_tick(struct disk_image *im); /* before each change or flush: a cut may be due */
/* ---- disk_fault.c ---- */
/* 0, or what such an operation answers now: -errno. */
int image_fails(struct disk_image *im, enum disk_fault f);
/* What an asynchronous operation of ns takes on this disk; a synchronous one that was made. */
int64_t image_takes(struct disk_image *im, int64_t ns);
void image_took(struct disk_image *im);
void image_tell_space(struct disk_image *im);
/* A flush of these blocks failed: as after a power cut, each is kept, dropped or torn. */
void image_lose(struct disk_image *im, struct node *n, uint64_t from_block, uint64_t to_block);

/* Before a name is changed. */
bool image_note(struct disk_image *im, int kind, struct node *node, struct node *old,
                const char *from);
/* dir was synced; NULL: all is as durable as it will be. */
void image_settle(struct disk_image *im, const char *dir);

#endif
