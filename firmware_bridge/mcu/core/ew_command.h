/* A command of the host while it is being judged. */
#ifndef EW_COMMAND_H
#define EW_COMMAND_H
#include "ew_core.h"

typedef struct {
    const uint8_t *payload;
    size_t count;
    int64_t stamp_us;
    int64_t now_us;
    uint16_t seq;
    int32_t arg;     /* goes into the ACK */
    int32_t lead_us; /* likewise */
} ew_command_t;

#define EW_ANSWERED_LATER 0xFFu /* instead of an AckCode */

static inline uint8_t ew_bad_length(ew_command_t *command)
{
    command->arg = (int32_t)command->count;
    return EW_ACK_CODE_BAD_LENGTH;
}

static inline uint8_t ew_bad_value(ew_command_t *command, int32_t field)
{
    command->arg = field;
    return EW_ACK_CODE_BAD_VALUE;
}

static inline uint8_t ew_bad_state(const ew_t *ew, ew_command_t *command)
{
    command->arg = (int32_t)ew->state;
    return EW_ACK_CODE_BAD_STATE;
}

/* ew_limits.c */
uint8_t ew_on_limits_set(ew_t *ew, ew_command_t *command);
uint8_t ew_on_limits_commit(ew_t *ew, ew_command_t *command);
uint8_t ew_on_limits_get(ew_t *ew, ew_command_t *command);
uint8_t ew_on_drive_set(ew_t *ew, ew_command_t *command);
uint8_t ew_on_drive_get(ew_t *ew, ew_command_t *command);
uint8_t ew_on_stops_set(ew_t *ew, ew_command_t *command);
uint8_t ew_on_stops_get(ew_t *ew, ew_command_t *command);

/* ew_host.c */
void ew_on_heartbeat(ew_t *ew, const ew_command_t *command);

/* ew_chunk.c */
uint8_t ew_on_chunk(ew_t *ew, ew_command_t *command);

#endif
