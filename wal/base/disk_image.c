/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk_image.c - the image of a simulated disk: its content, and what a power cut leaves of it.
 */
#include "disk_image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TORN_UNIT 512u /* a device writes this much whole */

/* ---- small parts ---- */
uint64_t image_random(struct disk_image *im)
{
    uint64_t z = im->rng += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t image_blocks(uint64_t len)
{
    return (len + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES;
}

/* Longer content is zero there. */
bool bytes_resize(struct bytes *b, uint64_t len)
{
    if (len > b->cap) {
        uint64_t cap = b->cap == 0 ? DISK_BLOCK_BYTES : b->cap;
        uint8_t *data;
        while (cap < len)
            cap *= 2;
        data = realloc(b->data, cap);
        if (data == NULL)
            return false;
        b->data = data;
        b->cap = cap;
    }
    if (len > b->len)
        memset(b->data + b->len, 0, len - b->len);
    b->len = len;
    return true;
}

bool image_resize(struct node *n, uint64_t len)
{
    uint64_t want = image_blocks(len);

    if (want > n->marks_cap) {
        uint64_t cap = n->marks_cap == 0 ? 16 : n->marks_cap;
        uint8_t *marks;
        while (cap < want)
            cap *= 2;
        marks = realloc(n->marks, cap);
        if (marks == NULL)
            return false;
        memset(marks + n->marks_cap, 0, cap - n->marks_cap);
        n->marks = marks;
        n->marks_cap = cap;
    }
    if (n->marks_cap > want)
        memset(n->marks + want, 0, n->marks_cap - want);
    return bytes_resize(&n->live, len);
}

static void image_node_free(struct node *n)
{
    free(n->path);
    free(n->live.data);
    free(n->durable.data);
    free(n->marks);
    free(n);
}

struct node *image_find(struct disk_image *im, const char *path)
{
    struct node *n = im->nodes;

    while (n != NULL && strcmp(n->path, path) != 0)
        n = n->next;
    return n;
}

static void image_unlink(struct node **list, struct node *n)
{
    while (*list != n)
        list = &(*list)->next;
    *list = n->next;
    n->next = NULL;
}

struct node *image_add(struct disk_image *im, const char *path, bool directory)
{
    struct node *n = calloc(1, sizeof(*n));

    if (n == NULL || (n->path = strdup(path)) == NULL) {
        free(n);
        return NULL;
    }
    n->directory = directory;
    n->next = im->nodes;
    im->nodes = n;
    return n;
}

/* The name is gone; the content goes with the last handle. */
void image_drop_name(struct disk_image *im, struct node *n)
{
    image_unlink(&im->nodes, n);
    if (n->handles == 0) {
        image_node_free(n);
        return;
    }
    n->removed = true;
    n->next = im->ghosts;
    im->ghosts = n;
}

void image_put_handle(struct disk_image *im, struct node *n)
{
    if (--n->handles == 0 && n->removed) {
        image_unlink(&im->ghosts, n);
        image_node_free(n);
    }
}

static struct disk_image *copy_image(struct disk_image *im);

/* Before each change or flush. */
void image_tick(struct disk_image *im)
{
    if (im->cut_in == 0 || --im->cut_in > 0)
        return;
    im->cut = copy_image(im);
    im->cut_hit(im->cut_arg);
}

/* ---- names that may be taken back ---- */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

static void change_free(struct disk_image *im, struct change *c)
{
    image_put_handle(im, c->node);
    if (c->old != NULL)
        image_put_handle(im, c->old);
    free(c->dir);
    free(c->from);
    free(c);
}

/* Before the change is made: node has the path that tells its directory. */
bool image_note(struct disk_image *im, int kind, struct node *node, struct node *old,
                const char *from)
{
    struct change *c = calloc(1, sizeof(*c));

    if (c == NULL || (c->dir = parent_of(node->path)) == NULL ||
        (from != NULL && (c->from = strdup(from)) == NULL)) {
        if (c != NULL)
            free(c->dir);
        free(c);
        return false;
    }
    c->kind = kind;
    c->node = node;
    c->old = old;
    node->handles++;
    if (old != NULL)
        old->handles++;
    c->next = im->changes;
    im->changes = c;
    return true;
}

/* The directory was synced, or (NULL) everything is as durable as it will be. What was in a
 * directory that is gone for good is gone with it. */
void image_settle(struct disk_image *im, const char *dir)
{
    struct change **at = &im->changes, *done = NULL, *c;

    while ((c = *at) != NULL) {
        if (dir != NULL && strcmp(c->dir, dir) != 0) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        c->next = done;
        done = c;
    }
    while ((c = done) != NULL) {
        done = c->next;
        if (c->kind == REMOVED && c->node->directory)
            image_settle(im, c->node->path);
        change_free(im, c);
    }
}

bool image_inside(const char *path, const char *dir, const char **restp)
{
    size_t n = strlen(dir);

    while (n > 0 && dir[n - 1] == '/')
        n--;
    if (strncmp(path, dir, n) != 0 || path[n] != '/')
        return false;
    *restp = path + n + 1;
    return true;
}

/* ---- content and names that move ---- */
/* Make part of one marked block durable. */
bool image_keep(struct node *n, uint64_t block, uint64_t from, uint64_t to)
{
    uint64_t off = block * DISK_BLOCK_BYTES + from, end = block * DISK_BLOCK_BYTES + to;

    if (end > n->live.len)
        end = n->live.len;
    if (off >= end)
        return true;
    if (end > n->durable.len && !bytes_resize(&n->durable, end))
        return false;
    memcpy(n->durable.data + off, n->live.data + off, end - off);
    return true;
}

/* ---- names ---- */
/* A directory takes all in it along. */
bool image_move(struct disk_image *im, const struct node *n, const char *from, const char *to)
{
    size_t from_len = strlen(from);
    const char *rest;

    for (struct node *m = im->nodes; m != NULL; m = m->next) {
        char *path = NULL;
        if (m != n && !image_inside(m->path, from, &rest))
            continue;
        if (asprintf(&path, "%s%s", to, m->path + from_len) < 0)
            return false;
        free(m->path);
        m->path = path;
    }
    return true;
}

/* ---- the image ---- */
struct disk_image *disk_image_new(uint64_t seed)
{
    struct disk_image *im = calloc(1, sizeof(*im));

    if (im == NULL)
        return NULL;
    pthread_mutex_init(&im->lock, NULL);
    im->rng = seed;
    im->free_bytes = UINT64_C(1) << 40;
    return im;
}

static void free_list(struct node *n)
{
    while (n != NULL) {
        struct node *next = n->next;
        image_node_free(n);
        n = next;
    }
}

void disk_image_free(struct disk_image *im)
{
    if (im == NULL)
        return;
    disk_image_free(im->cut);
    image_settle(im, NULL);
    free_list(im->nodes);
    free_list(im->ghosts);
    pthread_mutex_destroy(&im->lock);
    free(im);
}

void image_settle_block(struct disk_image *im, struct node *n, uint64_t b)
{
    uint64_t choice = image_random(im) % 3;
    uint64_t units = image_random(im);

    n->marks[b] = 0;
    if (choice == 0)
        return;
    for (uint64_t u = 0; u < DISK_BLOCK_BYTES / TORN_UNIT; u++) {
        if (choice == 1 || (units >> u & 1) != 0)
            (void)image_keep(n, b, u * TORN_UNIT,
                             (u + 1) * TORN_UNIT); /* no memory: dropped, as may be */
    }
}

static void cut_power(struct disk_image *im, struct node *n)
{
    for (uint64_t b = 0; b < image_blocks(n->live.len); b++) {
        if (n->marks[b])
            image_settle_block(im, n, b);
    }
    /* What was dropped or torn falls back to what the disk holds. Shrinking can't fail. */
    if (n->live.len > n->durable.len)
        (void)bytes_resize(&n->live, n->durable.len);
    if (n->live.len > 0)
        memcpy(n->live.data, n->durable.data, n->live.len);
}

/* How many of the last changes of a directory go: none, all, or a few. */
struct loss {
    struct loss *next;
    const char *dir;
    enum { NONE, SOME, ALL } how;
};

static struct loss *loss_of(struct disk_image *im, struct loss **all, const char *dir)
{
    struct loss *l = *all;

    while (l != NULL && strcmp(l->dir, dir) != 0)
        l = l->next;
    if (l == NULL && (l = calloc(1, sizeof(*l))) != NULL) {
        *l = (struct loss){*all, dir, (int)(image_random(im) % 3)};
        *all = l;
    }
    return l;
}

static void bring_back(struct disk_image *im, struct node *n)
{
    image_unlink(&im->ghosts, n);
    n->removed = false;
    n->next = im->nodes;
    im->nodes = n;
}

static void drop_all_in(struct disk_image *im, const char *dir)
{
    const char *rest;

    for (struct node *m = im->nodes; m != NULL;) {
        if (!image_inside(m->path, dir, &rest)) {
            m = m->next;
            continue;
        }
        image_drop_name(im, m);
        m = im->nodes; /* the list has changed */
    }
}

/* Later changes of the same directory have been taken back before. */
static void take_back(struct disk_image *im, struct change *c)
{
    struct node *n = c->node;
    char *to;

    if (c->kind == REMOVED) {
        bring_back(im, n);
    } else if (n->removed) {
        /* went with its directory */
    } else if (c->kind == MADE) {
        if (n->directory)
            drop_all_in(im, n->path);
        image_drop_name(im, n);
    } else if ((to = strdup(n->path)) != NULL) {
        (void)image_move(im, n, to, c->from);
        if (c->old != NULL)
            bring_back(im, c->old);
        free(to);
    }
}

static void cut_names(struct disk_image *im)
{
    struct loss *all = NULL, *l;

    for (struct change *c = im->changes; c != NULL; c = c->next) {
        l = loss_of(im, &all, c->dir);
        if (l == NULL)
            continue;
        if (l->how == SOME && image_random(im) % 2 == 0)
            l->how = NONE; /* this one reached the disk, and so did all before it */
        if (l->how != NONE)
            take_back(im, c);
        else if (c->kind == REMOVED && c->node->directory &&
                 (l = loss_of(im, &all, c->node->path)) != NULL)
            l->how = NONE; /* what was in it cannot outlive it */
    }
    while ((l = all) != NULL) {
        all = l->next;
        free(l);
    }
    image_settle(im, NULL);
}

void disk_image_kill(struct disk_image *im)
{
    pthread_mutex_lock(&im->lock);
    im->epoch++;
    pthread_mutex_unlock(&im->lock);
}

void disk_image_crash(struct disk_image *im)
{
    pthread_mutex_lock(&im->lock);
    im->epoch++;
    cut_names(im);
    for (struct node *n = im->nodes; n != NULL; n = n->next)
        cut_power(im, n);
    pthread_mutex_unlock(&im->lock);
}

static bool copy_bytes(struct bytes *to, const struct bytes *from)
{
    if (from->len == 0)
        return true;
    to->data = malloc(from->len);
    if (to->data == NULL)
        return false;
    memcpy(to->data, from->data, from->len);
    to->len = to->cap = from->len;
    return true;
}

static struct node *copy_node(const struct node *n)
{
    struct node *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->directory = n->directory;
    c->removed = n->removed;
    c->path = strdup(n->path);
    c->marks = calloc(n->marks_cap + 1, 1);
    if (c->path == NULL || c->marks == NULL || !copy_bytes(&c->live, &n->live) ||
        !copy_bytes(&c->durable, &n->durable)) {
        image_node_free(c);
        return NULL;
    }
    c->marks_cap = n->marks_cap;
    if (n->marks_cap > 0)
        memcpy(c->marks, n->marks, n->marks_cap);
    return c;
}

/* Copies of a list of nodes, in order; each node's twin is its copy. */
static bool copy_nodes(struct node *from, struct node **to)
{
    for (struct node *n = from; n != NULL; n = n->next) {
        n->twin = *to = copy_node(n);
        if (*to == NULL)
            return false;
        to = &(*to)->next;
    }
    return true;
}

static bool copy_changes(const struct disk_image *from, struct disk_image *to)
{
    struct change **tail = &to->changes;

    for (const struct change *c = from->changes; c != NULL; c = c->next) {
        struct change *copy = calloc(1, sizeof(*copy));

        if (copy == NULL || (copy->dir = strdup(c->dir)) == NULL ||
            (c->from != NULL && (copy->from = strdup(c->from)) == NULL)) {
            if (copy != NULL)
                free(copy->dir);
            free(copy);
            return false;
        }
        copy->kind = c->kind;
        copy->node = c->node->twin;
        copy->node->handles++;
        if (c->old != NULL) {
            copy->old = c->old->twin;
            copy->old->handles++;
        }
        *tail = copy;
        tail = &copy->next;
    }
    return true;
}

/* Nobody has the copy's files open: only what a change may bring back stays of those removed. */
static void drop_idle_ghosts(struct disk_image *im)
{
    for (struct node *n = im->ghosts, *next; n != NULL; n = next) {
        next = n->next;
        if (n->handles == 0) {
            image_unlink(&im->ghosts, n);
            image_node_free(n);
        }
    }
}

static struct disk_image *copy_image(struct disk_image *im)
{
    struct disk_image *c = disk_image_new(im->rng);
    bool whole;

    if (c == NULL)
        return NULL;
    c->free_bytes = im->free_bytes;
    memcpy(c->fault, im->fault, sizeof(c->fault));
    whole = copy_nodes(im->nodes, &c->nodes) && copy_nodes(im->ghosts, &c->ghosts) &&
            copy_changes(im, c);
    drop_idle_ghosts(c);
    if (whole)
        return c;
    disk_image_free(c);
    return NULL;
}

struct disk_image *disk_image_clone(struct disk_image *im)
{
    struct disk_image *c;

    pthread_mutex_lock(&im->lock);
    c = copy_image(im);
    pthread_mutex_unlock(&im->lock);
    return c;
}

void disk_image_cut_in(struct disk_image *im, uint64_t ops, void (*hit)(void *arg), void *arg)
{
    pthread_mutex_lock(&im->lock);
    im->cut_in = ops;
    im->cut_hit = hit;
    im->cut_arg = arg;
    pthread_mutex_unlock(&im->lock);
}

struct disk_image *disk_image_take_cut(struct disk_image *im)
{
    struct disk_image *cut;

    pthread_mutex_lock(&im->lock);
    cut = im->cut;
    im->cut = NULL;
    pthread_mutex_unlock(&im->lock);
    return cut;
}

static uint64_t list_memory(const struct node *n)
{
    uint64_t bytes = 0;

    for (; n != NULL; n = n->next)
        bytes += sizeof(*n) + n->live.cap + n->durable.cap + n->marks_cap;
    return bytes;
}

uint64_t disk_image_memory(struct disk_image *im)
{
    uint64_t bytes;

    pthread_mutex_lock(&im->lock);
    bytes = list_memory(im->nodes) + list_memory(im->ghosts);
    pthread_mutex_unlock(&im->lock);
    return bytes;
}

int disk_image_flip(struct disk_image *im, const char *path, uint64_t bit, struct err *err)
{
    struct node *n;
    bool there;

    pthread_mutex_lock(&im->lock);
    n = image_find(im, path);
    there = n != NULL && bit / 8 < n->live.len;
    if (there) {
        n->live.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        if (bit / 8 < n->durable.len)
            n->durable.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    pthread_mutex_unlock(&im->lock);
    return there
               ? 0
               : err_set(err, ERR_NOTFOUND, 0, "no bit %llu in %s", (unsigned long long)bit, path);
}
