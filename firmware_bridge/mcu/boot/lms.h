/* Leighton-Micali hash-based signatures (RFC 8554, NIST SP 800-208), verification only. Nothing but SHA-256 is needed, which is why
 * it is used here: there is no arithmetic to get wrong, and no curve that a quantum computer could break. Signing is the host's,
 * which must never use a leaf twice. */
#ifndef EW_LMS_H
#define EW_LMS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LMS_KEY_BYTES 56u /* type of tree, type of one-time signature, identifier, root */

/* True only for a signature of exactly this message under this key. Work is bounded by 265 * 255 hashes; 67 * 15 as shipped. */
bool lms_verify(const uint8_t *key, const uint8_t *message, size_t count, const uint8_t *signature, size_t signature_count);

/* Length of a signature under this key, 0: its types are unknown. */
size_t lms_signature_bytes(const uint8_t *key);

#endif
