/* Random changes to the corpus without looking at coverage, several times faster than libFuzzer: storm SEED COUNT FILE... */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST 256u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern unsigned long watch_running;

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
    if (argc < 4) {
        return 2;
    }
    state = (strtoull(argv[1], NULL, 10) * 0x9E3779B97F4A7C15u) | 1u;
    (void)signal(SIGABRT, save);
    (void)signal(SIGSEGV, save);
    const unsigned long rounds = strtoul(argv[2], NULL, 10);
    const size_t programs = (size_t)argc - 3u;
    program_t *corpus = calloc(programs, sizeof *corpus);
    for (size_t i = 0u; i < programs; i++) {
        FILE *file = fopen(argv[i + 3u], "rb");
        corpus[i].count = (file != NULL) ? fread(corpus[i].bytes, 1u, LONGEST, file) : 0u;
        if (corpus[i].count == 0u) {
            corpus[i].count = 1u;
        }
        if (file != NULL) {
            (void)fclose(file);
        }
    }
    for (unsigned long round = 0u; round < rounds; round++) {
        p = corpus[below(programs)];
        for (size_t changes = 1u + below(6); changes > 0u; changes--) {
            change(&p, &corpus[below(programs)]);
        }
        if ((round % 1000000u) == 0u) {
            printf("%lu sequences, %lu ticks in RUN\n", round, watch_running);
            (void)fflush(stdout);
        }
        (void)LLVMFuzzerTestOneInput(p.bytes, p.count);
    }
    printf("%lu sequences, %lu ticks in RUN\n", rounds, watch_running);
    free(corpus);
    return 0;
}
