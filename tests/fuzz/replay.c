/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replay.c - runs a fuzz target over its corpus, and over seeded mutations of it, without
 * libFuzzer.
 *
 * usage: fuzz_x CORPUS_DIR [MUTATIONS [SEED]]. Fails when the corpus is missing or empty.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t rng_next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* One to eight changes: a flipped bit, a byte, a cut, a repeated part. */
static size_t mutate(uint8_t *data, size_t len, size_t cap, uint64_t *s)
{
    unsigned changes = 1 + (unsigned)(rng_next(s) % 8);

    for (unsigned i = 0; i < changes && len > 0; i++) {
        size_t at = (size_t)(rng_next(s) % len);
        switch (rng_next(s) % 4) {
        case 0:
            data[at] ^= (uint8_t)(1u << (rng_next(s) % 8));
            break;
        case 1:
            data[at] = (uint8_t)rng_next(s);
            break;
        case 2:
            len = at;
            break;
        default: {
            size_t n = 1 + (size_t)(rng_next(s) % 16);
            if (at + n <= len && len + n <= cap) {
                memmove(data + at + n, data + at, len - at);
                len += n;
            }
        }
        }
    }
    return len;
}

int main(int argc, char **argv)
{
    uint64_t rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : 2000;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    struct dirent *ent;
    unsigned files = 0;
    DIR *dir;

    if (argc < 2 || (dir = opendir(argv[1])) == NULL) {
        fprintf(stderr, "usage: %s CORPUS_DIR [MUTATIONS [SEED]]\n", argv[0]);
        return 2;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    while ((ent = readdir(dir)) != NULL) {
        static uint8_t data[1 << 20], work[(1 << 20) + 4096];
        char path[4096];
        size_t len;
        FILE *f;

        if (ent->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", argv[1], ent->d_name);
        f = fopen(path, "rb");
        if (f == NULL) {
            perror(path);
            return 1;
        }
        len = fread(data, 1, sizeof(data), f);
        fclose(f);
        files++;
        LLVMFuzzerTestOneInput(data, len);
        uint64_t s = seed * 0x9e3779b97f4a7c15u + files;
        for (uint64_t i = 0; i < rounds; i++) {
            uint8_t *exact;
            size_t n;
            memcpy(work, data, len);
            n = mutate(work, len, sizeof(work), &s);
            /* A block of exactly n bytes, so that ASan sees each read past the end. */
            exact = malloc(n > 0 ? n : 1);
            if (exact == NULL)
                return 1;
            memcpy(exact, work, n);
            LLVMFuzzerTestOneInput(exact, n);
            free(exact);
        }
    }
    closedir(dir);
    if (files == 0) {
        fprintf(stderr, "%s: empty corpus\n", argv[1]);
        return 1;
    }
    printf("%u inputs, %llu mutations each\n", files, (unsigned long long)rounds);
    return 0;
}
