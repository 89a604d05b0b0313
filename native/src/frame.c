#include "frame.h"

#include <errno.h>
#include <string.h>

#include "io.h"

static uint16_t get16(const uint8_t *bytes) { return (uint16_t)(bytes[0] | bytes[1] << 8); }

static uint32_t get32(const uint8_t *bytes) { return (uint32_t)get16(bytes) | (uint32_t)get16(bytes + 2) << 16; }

static void put16(uint8_t *bytes, uint16_t value) {
  bytes[0] = (uint8_t)value;
  bytes[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *bytes, uint32_t value) {
  put16(bytes, (uint16_t)value);
  put16(bytes + 2, (uint16_t)(value >> 16));
}

bool frame_decode(const uint8_t bytes[FRAME_HEADER_SIZE], struct frame_header *header) {
  header->size = get32(bytes);
  header->id = get32(bytes + 4);
  header->type = get16(bytes + 8);
  header->status = get16(bytes + 10);
  return header->size <= FRAME_MAX_PAYLOAD;
}

void frame_encode(uint8_t bytes[FRAME_HEADER_SIZE], const struct frame_header *header) {
  put32(bytes, header->size);
  put32(bytes + 4, header->id);
  put16(bytes + 8, header->type);
  put16(bytes + 10, header->status);
}

/* The next `size` bytes, or NULL. */
static uint8_t *take(struct reader *reader, size_t size) {
  if (reader->failed || size > reader->size - reader->offset) {
    reader->failed = true;
    return NULL;
  }
  uint8_t *bytes = reader->data + reader->offset;
  reader->offset += size;
  return bytes;
}

uint32_t read_u32(struct reader *reader) {
  const uint8_t *bytes = take(reader, 4);
  return bytes == NULL ? 0 : get32(bytes);
}

uint64_t read_u64(struct reader *reader) {
  const uint8_t *bytes = take(reader, 8);
  return bytes == NULL ? 0 : (uint64_t)get32(bytes) | (uint64_t)get32(bytes + 4) << 32;
}

char *read_string(struct reader *reader, size_t limit) {
  uint32_t size = read_u32(reader);
  if (size > limit) reader->failed = true;
  uint8_t *bytes = take(reader, size);
  if (bytes == NULL) return NULL;
  if (memchr(bytes, '\0', size) != NULL) {
    reader->failed = true;
    return NULL;
  }
  char *text = (char *)bytes - 1; /* inside the size field that was read just before */
  memmove(text, bytes, size);
  text[size] = '\0';
  return text;
}

const uint8_t *read_bytes(struct reader *reader, size_t size) { return take(reader, size); }

bool reader_finished(const struct reader *reader) { return !reader->failed && reader->offset == reader->size; }

void writer_reset(struct writer *writer) {
  writer->size = 0;
  writer->failed = false;
}

static uint8_t *grow(struct writer *writer, size_t size) {
  if (writer->failed || size > WRITER_CAPACITY - writer->size) {
    writer->failed = true;
    return NULL;
  }
  uint8_t *bytes = writer->bytes + FRAME_HEADER_SIZE + writer->size;
  writer->size += size;
  return bytes;
}

void write_u32(struct writer *writer, uint32_t value) {
  uint8_t *bytes = grow(writer, 4);
  if (bytes != NULL) put32(bytes, value);
}

void write_u64(struct writer *writer, uint64_t value) {
  write_u32(writer, (uint32_t)value);
  write_u32(writer, (uint32_t)(value >> 32));
}

void write_string(struct writer *writer, const char *text) {
  size_t size = strlen(text);
  write_u32(writer, (uint32_t)size);
  uint8_t *bytes = grow(writer, size);
  if (bytes != NULL) memcpy(bytes, text, size);
}

int send_frame(int fd, struct frame_header header, struct writer *writer) {
  if (writer->failed) {
    errno = EMSGSIZE;
    return -1;
  }
  header.size = (uint32_t)writer->size;
  frame_encode(writer->bytes, &header);
  return write_full(fd, writer->bytes, FRAME_HEADER_SIZE + writer->size);
}
