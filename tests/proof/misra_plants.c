/* Violations on purpose. test_misra.py puts this file among those of the core and expects a finding of each rule in the line that
 * names it, or in the line below where it is named alone. Nothing is built from it. */
/* plant 21.4 */
#include <setjmp.h>
/* plant 21.6 */
#include <stdio.h>
#include <stdlib.h>
/* plant 21.5 */
#include <signal.h>
/* plant 21.10 */
#include <time.h>
#include <string.h>
#include "ew_protocol.h"
#undef EW_TICK_US /* plant 20.5 */
#define EW_TICK_US 1000
#define BARE(x) (2u * x) /* plant 20.7 */
#define GLUE(a, b) a##b /* plant 20.10 */
#define errno 3 /* plant 21.1 */

typedef enum { RED = 1, GREEN = 2 } colour_t;
typedef enum { NORTH = 1, SOUTH = 2 } side_t;
typedef struct {
    signed int one : 1; /* plant 6.2 */
} bits_t;
typedef union { /* plant 19.2 */
    uint32_t word;
    uint8_t byte[4];
} both_t;

extern int32_t planted_global;
int32_t planted_global = 1;
int32_t planted_hidden = 2; /* plant 8.4 */
uint32_t planted_recursive(uint32_t n);
void planted_old();  /* plant 8.2 */
void planted_variadic(uint32_t n, ...);
int32_t *planted_pointers(int32_t *p, const int32_t *q, void (*call)(void), uint8_t *bytes, void *any);
int32_t planted_types(uint8_t small, uint32_t large, int32_t number, bool yes, colour_t colour, side_t side);
uint32_t planted_flow(uint32_t n, const uint8_t *bytes);
uint32_t planted_library(const char *text);
uint32_t planted_fresh(void);

void planted_variadic(uint32_t n, ...)
{
    va_list list; /* plant 17.1 */
    (void)n;
}

uint32_t planted_recursive(uint32_t n)
{
    return (n == 0u) ? 0u : planted_recursive(n - 1u); /* plant 17.2 */
}

int32_t *planted_pointers(int32_t *p, const int32_t *q, void (*call)(void), uint8_t *bytes, void *any)
{
    int32_t *writable = (int32_t *)q; /* plant 11.8 */
    uint32_t *wide = (uint32_t *)bytes; /* plant 11.3 */
    uintptr_t address = (uintptr_t)p; /* plant 11.4 */
    uint8_t *typed = any; /* plant 11.5 */
    uint32_t code = (uint32_t)call; /* plant 11.1 */
    int32_t *none = 0; /* plant 11.9 */
    int32_t ***deep = NULL; /* plant 18.5 */
    int32_t *next = p + 1; /* plant 18.4 */
    int32_t list[2] = {1, 2, 3};
    int32_t part[4] = {1, 2}; /* plant 9.3 */
    *any = 0;
    return (writable != NULL) ? next : none;
}

int32_t planted_types(uint8_t small, uint32_t large, int32_t number, bool yes, colour_t colour, side_t side)
{
    uint8_t narrow = large; /* plant 10.3 */
    int32_t mixed = number + large; /* plant 10.4 */
    uint32_t wide = small * small; /* plant 10.6 */
    uint32_t sum = large + (small + small); /* plant 10.7 */
    uint32_t cast = (uint32_t)(small + small); /* plant 10.8 */
    bool truth = (bool)colour; /* plant 10.5 */
    uint32_t flags = number << 1u; /* plant 10.1 */
    char letter = 'a' + 'b'; /* plant 10.2 */
    uint32_t octal = 017; /* plant 7.1 */
    uint32_t unsuffixed = 0xFFFFFFFF; /* plant 7.2 */
    int64_t lower = 1l; /* plant 7.3 */
    char *text = "constant"; /* plant 7.4 */
    uint32_t shifted = large << 32; /* plant 12.2 */
    uint32_t unclear = large + large << 2u; /* plant 12.1 */
    uint32_t wrapped = 1u - 2u; /* plant 12.4 */
    number = 1, mixed = 2; /* plant 12.3 */
    if (yes == (colour == side)) { /* plant 10.4 */
        number++;
    }
    if (large) { /* plant 14.4 */
        number++;
    }
    number = mixed = 3; /* plant 13.4 */
    mixed = number++ + 1; /* plant 13.3 */
    if ((large > 1u) && (number++ > 2)) { /* plant 13.5 */
        number = 1;
    }
    return number;
}

uint32_t planted_flow(uint32_t n, const uint8_t *bytes)
{
    uint32_t total = 0u;
    float x;
    uint32_t again[n]; /* plant 18.8 */
    if (n > 3u) /* plant 15.6 */
        total++;
    if (n > 4u) {
        goto out; /* plant 15.1 */
    }
    if (n > 5u) {
        total++;
    } else if (n > 6u) {
        total--;
    } /* plant 15.7 */
    switch (n) { /* plant 16.4 */
    case 1u:
        total++;
    case 2u: /* plant 16.3 */
        total--;
        break;
    }
    switch (n > 2u) { /* plant 16.7 */
    case true:
        break;
    default:
        break;
    }
    for (x = 0.0f; x < 1.0f; x += 0.1f) { /* plant 14.1 */
        total++;
    }
    for (uint32_t i = 0u; i < n; i++) {
        total += bytes[i];
        i++; /* plant 14.2 */
    }
    while (total > 0u) { /* plant 15.4 */
        if (total == 3u) {
            break;
        }
        if (total == 4u) {
            break;
        }
        total--;
    }
    n = 3u; /* plant 17.8 */
out:
    return total;
    /* not /* here */ /* plant 3.1 */
}

uint32_t planted_library(const char *text)
{
    (void)malloc(4u); /* plant 21.3 */
    int32_t number = atoi(text); /* plant 21.7 */
    qsort(NULL, 4u, 1u, NULL); /* plant 21.9 */
    planted_recursive(3u); /* plant 17.7 */
    abort(); /* plant 21.8 */
    return (uint32_t)number;
}

uint32_t planted_fresh(void)
{
    uint32_t fresh;
    return fresh; /* plant uninitvar */
}
