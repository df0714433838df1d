/* What every harness uses. A function nondet_*() has no body: the model checker takes every value that it could return. */
#ifndef PROOF_H
#define PROOF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint8_t nondet_u8(void);
uint16_t nondet_u16(void);
uint32_t nondet_u32(void);
int32_t nondet_i32(void);
int64_t nondet_i64(void);
size_t nondet_size(void);
bool nondet_bool(void);

#define ASSUME(condition) __CPROVER_assume(condition)
#define PROVE(condition, what) __CPROVER_assert(condition, what)

/* The last statement of every harness. A proof whose assumptions contradict each other holds for nothing: with -DVACUITY the
 * end must be reached, that is, this assertion must fail. */
#ifdef VACUITY
#define END() __CPROVER_assert(false, "vacuity: the end is reached")
#else
#define END() ((void)0)
#endif

/* A bound that is one tighter than what is proved: with -DTIGHT the proof must fail. */
#ifdef TIGHT
#define SLACK 1
#else
#define SLACK 0
#endif

/* Every value at once, for objects. */
#define HAVOC(pointer) __CPROVER_havoc_object(pointer)

#endif
