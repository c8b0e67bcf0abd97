/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk_fault.c - what a simulated disk does wrong beside losing its power: operations that fail,
 * time, and little space.
 *
 * Each is told to whoever armed it at the moment when an operation meets it: a fault that is armed
 * and never met tests nothing, and must not be counted.
 */
#include <string.h>

#include "disk_image.h"

#define SYNC_MIN_NS 20000 /* what a synchronous call takes at least on a disk that is not slow */
#define SYNC_MAX_NS 400000

static void tell(struct disk_image *im, enum disk_fault f, int sys)
{
    if (im->fault_hit != NULL)
        im->fault_hit(im->fault_arg, f, sys);
}

int image_fails(struct disk_image *im, enum disk_fault f)
{
    struct image_fault *x = &im->fault[f];
    int sys = x->sys;

    if (sys == 0 || im->held)
        return 0;
    if (x->after > 0) {
        x->after--;
        return 0;
    }
    if (x->times > 0 && --x->times == 0)
        x->sys = 0;
    tell(im, f, sys);
    return -sys;
}

static bool is_slow(struct disk_image *im)
{
    if (im->slow == 0 || im->held)
        return false;
    if (im->slow_new)
        tell(im, DISK_FAULT_SLOW, 0);
    im->slow_new = false;
    return true;
}

int64_t image_takes(struct disk_image *im, int64_t ns)
{
    return is_slow(im) ? ns * im->slow : ns;
}

void image_took(struct disk_image *im)
{
    if (is_slow(im))
        im->busy_ns +=
            im->slow * (SYNC_MIN_NS + image_random(im) % (uint64_t)(SYNC_MAX_NS - SYNC_MIN_NS));
}

void image_tell_space(struct disk_image *im)
{
    if (im->space_new && !im->held) {
        tell(im, DISK_FAULT_SPACE, 0);
        im->space_new = false;
    }
}

void image_lose(struct disk_image *im, struct node *n, uint64_t from_block, uint64_t to_block)
{
    for (uint64_t b = from_block; b < to_block && b < image_blocks(n->live.len); b++) {
        if (n->marks[b])
            image_settle_block(im, n, b);
    }
}

void disk_image_fail(struct disk_image *im, enum disk_fault f, uint64_t after, uint64_t times,
                     int sys)
{
    pthread_mutex_lock(&im->lock);
    im->fault[f] = (struct image_fault){.after = after, .times = times, .sys = sys};
    pthread_mutex_unlock(&im->lock);
}

void disk_image_fail_writes(struct disk_image *im, uint64_t after, int sys)
{
    disk_image_fail(im, DISK_FAULT_WRITE, after, 0, sys);
}

void disk_image_mend(struct disk_image *im)
{
    pthread_mutex_lock(&im->lock);
    memset(im->fault, 0, sizeof(im->fault));
    im->slow = 0;
    im->busy_ns = 0;
    pthread_mutex_unlock(&im->lock);
}

void disk_image_on_fault(struct disk_image *im, void (*hit)(void *arg, enum disk_fault f, int sys),
                         void *arg)
{
    pthread_mutex_lock(&im->lock);
    im->fault_hit = hit;
    im->fault_arg = arg;
    pthread_mutex_unlock(&im->lock);
}

void disk_image_hold_faults(struct disk_image *im, bool on)
{
    pthread_mutex_lock(&im->lock);
    im->held = on;
    pthread_mutex_unlock(&im->lock);
}

void disk_image_slow(struct disk_image *im, unsigned times)
{
    pthread_mutex_lock(&im->lock);
    im->slow = times;
    im->slow_new = times > 0;
    pthread_mutex_unlock(&im->lock);
}

int64_t disk_image_take_busy_ns(struct disk_image *im)
{
    int64_t ns;

    pthread_mutex_lock(&im->lock);
    ns = (int64_t)im->busy_ns;
    im->busy_ns = 0;
    pthread_mutex_unlock(&im->lock);
    return ns;
}

void disk_image_free_bytes(struct disk_image *im, uint64_t bytes)
{
    pthread_mutex_lock(&im->lock);
    im->space_new = bytes < im->free_bytes;
    im->free_bytes = bytes;
    pthread_mutex_unlock(&im->lock);
}
