/* Every program of the corpus, then COUNT random changes of them: storm SEED COUNT CORPUS. It does not look at coverage, and is
 * several times faster than libFuzzer for that. The corpus is a text: one program a line, in hexadecimal. */
#include "fuzz.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef LONGEST
#define LONGEST 256u
#endif
#define PROGRAMS 8192u

static uint64_t state;

static uint64_t random64(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static size_t below(size_t bound)
{
    return (size_t)(random64() % bound);
}

typedef struct {
    uint8_t bytes[LONGEST];
    size_t count;
} program_t;

static void change(program_t *q, const program_t *other)
{
    switch (below(5)) {
    case 0:
        q->bytes[below(q->count)] = (uint8_t)random64();
        break;
    case 1:
        q->bytes[below(q->count)] ^= (uint8_t)(1u << below(8));
        break;
    case 2: { /* cut something out */
        const size_t from = below(q->count);
        const size_t many = below(q->count - from);
        memmove(&q->bytes[from], &q->bytes[from + many], q->count - from - many);
        q->count -= many;
        break;
    }
    case 3: { /* something of another program in its place */
        const size_t from = below(other->count);
        const size_t to = below(q->count);
        size_t many = 1u + below(other->count - from);
        many = (many > (LONGEST - to)) ? (LONGEST - to) : many;
        memcpy(&q->bytes[to], &other->bytes[from], many);
        q->count = ((to + many) > q->count) ? (to + many) : q->count;
        break;
    }
    default: { /* something of itself once more */
        const size_t from = below(q->count);
        size_t many = 1u + below(q->count - from);
        many = (many > (LONGEST - q->count)) ? (LONGEST - q->count) : many;
        memmove(&q->bytes[q->count], &q->bytes[from], many);
        q->count += many;
        break;
    }
    }
}

static size_t read_corpus(const char *path, program_t *corpus)
{
    char line[(2u * LONGEST) + 4u];
    size_t programs = 0u;
    FILE *file = fopen(path, "r");
    while ((file != NULL) && (programs < PROGRAMS) && (fgets(line, sizeof line, file) != NULL)) {
        program_t *q = &corpus[programs];
        unsigned value = 0u;
        while ((q->count < LONGEST) && (sscanf(&line[2u * q->count], "%2x", &value) == 1)) {
            q->bytes[q->count] = (uint8_t)value;
            q->count++;
        }
        programs += (q->count > 0u) ? 1u : 0u;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return programs;
}

static program_t p;

/* The program that broke something, for LLVMFuzzerTestOneInput again. */
static void save(int signal)
{
    (void)signal;
    FILE *file = fopen("storm-broke", "wb");
    if (file != NULL) {
        (void)fwrite(p.bytes, 1u, p.count, file);
        (void)fclose(file);
    }
    _Exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        return 2;
    }
    state = (strtoull(argv[1], NULL, 10) * 0x9E3779B97F4A7C15u) | 1u;
    (void)signal(SIGABRT, save);
    (void)signal(SIGSEGV, save);
    const unsigned long rounds = strtoul(argv[2], NULL, 10);
    static program_t corpus[PROGRAMS];
    const size_t programs = read_corpus(argv[3], corpus);
    if (programs == 0u) {
        return 2;
    }
    for (size_t i = 0u; i < programs; i++) {
        p = corpus[i];
        (void)LLVMFuzzerTestOneInput(p.bytes, p.count);
    }
    printf("%zu programs of the corpus, %lu %s\n", programs, fuzz_reached, fuzz_unit);
    for (unsigned long round = 0u; round < rounds; round++) {
        p = corpus[below(programs)];
        for (size_t changes = 1u + below(6); changes > 0u; changes--) {
            change(&p, &corpus[below(programs)]);
        }
        if ((round % 1000000u) == 0u) {
            printf("%lu sequences, %lu %s\n", round, fuzz_reached, fuzz_unit);
            (void)fflush(stdout);
        }
        (void)LLVMFuzzerTestOneInput(p.bytes, p.count);
    }
    printf("%lu sequences, %lu %s\n", rounds, fuzz_reached, fuzz_unit);
    return 0;
}
