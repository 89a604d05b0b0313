/*
 * Frames on both links, little-endian. A header is 12 bytes: u32 payload size, u32 request id, u16 type, u16 status (an errno,
 * 0 for success). A payload is a sequence of fields without tags: u32, u64, and strings (u32 size, then the bytes, no NUL).
 * The same bytes are decoded by daemon/src/kernel/frame.ts; native/test/frames.hex is shared by the tests of both.
 */
#ifndef SQ_FRAME_H
#define SQ_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAME_HEADER_SIZE = 12, FRAME_MAX_PAYLOAD = 320 * 1024 };

struct frame_header {
  uint32_t size, id;
  uint16_t type, status;
};

/* Decodes a header; false when the payload would be larger than FRAME_MAX_PAYLOAD. */
bool frame_decode(const uint8_t bytes[FRAME_HEADER_SIZE], struct frame_header *header);
void frame_encode(uint8_t bytes[FRAME_HEADER_SIZE], const struct frame_header *header);

/* Reads fields from a payload. After the first field that does not fit, `failed` is set and every read gives zeroes. */
struct reader {
  uint8_t *data;
  size_t size, offset;
  bool failed;
};

uint32_t read_u32(struct reader *reader);
uint64_t read_u64(struct reader *reader);

/*
 * A string of at most `limit` bytes, without NUL inside. It is ended in place: the bytes are moved one to the left, over the last
 * byte of their own size field, so that the NUL fits without a copy. Returns NULL on failure.
 */
char *read_string(struct reader *reader, size_t limit);

/* The next `size` bytes, or NULL on failure. */
const uint8_t *read_bytes(struct reader *reader, size_t size);

/* True when every field was there and nothing is left over. */
bool reader_finished(const struct reader *reader);

enum { WRITER_CAPACITY = 96 * 1024 };

/* Collects fields of a payload behind the place of its header; `failed` is set when they do not fit. */
struct writer {
  size_t size; /* of the payload */
  bool failed;
  uint8_t bytes[FRAME_HEADER_SIZE + WRITER_CAPACITY];
};

void writer_reset(struct writer *writer);
void write_u32(struct writer *writer, uint32_t value);
void write_u64(struct writer *writer, uint64_t value);
void write_string(struct writer *writer, const char *text);

/* Sends a frame with the collected fields in one write; returns 0, or -1 with errno. */
int send_frame(int fd, struct frame_header header, struct writer *writer);

#endif
