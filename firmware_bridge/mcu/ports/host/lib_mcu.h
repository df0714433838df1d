/* What one simulated MCU consists of; only the library's own files know. */
#ifndef EDGEWAM_LIB_MCU_H
#define EDGEWAM_LIB_MCU_H
#include "ew_core.h"

struct ewl {
    ew_t core;
    ew_noinit_t noinit;
    uint32_t seed;
    bool sliced; /* the caller calls ewl_work */
};

/* Unless the caller does it. */
void ewl_finish_work(ewl_t *mcu, uint64_t now_us);
#endif
