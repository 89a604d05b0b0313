/* Tests of the parsers. Run under ASan and UBSan: `make check`. Expects to be started in native/. */
#include "../src/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../src/deadline.h"
#include "../src/exec_request.h"
#include "../src/frame.h"
#include "check.h"
#include "test_netlink.h"

int checks_passed, checks_failed;

static size_t from_hex(const char *hex, uint8_t *bytes, size_t capacity) {
  size_t size = 0;
  unsigned value;
  for (; size < capacity && sscanf(hex + 2 * size, "%2x", &value) == 1; size++) bytes[size] = (uint8_t)value;
  return size;
}

static void check_fields(struct reader *reader, char *fields) {
  for (char *field; (field = strsep(&fields, " ")) != NULL;) {
    if (field[0] == 'u') CHECK(read_u32(reader) == strtoul(field + 2, NULL, 10));
    if (field[0] == 'q') CHECK(read_u64(reader) == strtoull(field + 2, NULL, 10));
    if (field[0] == 'b') {
      uint8_t expected[64];
      size_t size = from_hex(field + 2, expected, sizeof(expected));
      const uint8_t *found = read_u32(reader) == size ? read_bytes(reader, size) : NULL;
      CHECK(found != NULL && memcmp(found, expected, size) == 0);
    }
    if (field[0] != 's') continue;
    for (char *blank; (blank = strchr(field, '_')) != NULL;) *blank = ' ';
    const char *text = read_string(reader, 255);
    CHECK(text != NULL && strcmp(text, field + 2) == 0);
  }
  CHECK(reader_finished(reader));
}

static void test_shared_vectors(void) {
  FILE *file = fopen("test/frames.hex", "r");
  char line[1024], name[64], hex[512];
  int count = 0;
  CHECK(file != NULL);
  while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
    unsigned type, id, status;
    int end = 0;
    if (line[0] == '#') continue;
    line[strcspn(line, "\n")] = '\0';
    CHECK(sscanf(line, "%63s %u %u %u %511s %n", name, &type, &id, &status, hex, &end) == 5);
    uint8_t bytes[256];
    size_t size = from_hex(hex, bytes, sizeof(bytes));
    struct frame_header header;
    CHECK(size >= FRAME_HEADER_SIZE && frame_decode(bytes, &header));
    CHECK(header.type == type && header.id == id && header.status == status && header.size == size - FRAME_HEADER_SIZE);
    uint8_t again[FRAME_HEADER_SIZE];
    frame_encode(again, &header);
    CHECK(memcmp(again, bytes, sizeof(again)) == 0);
    struct reader reader = {.data = bytes + FRAME_HEADER_SIZE, .size = header.size};
    if (end > 0 && line[end] != '\0') check_fields(&reader, line + end);
    count++;
  }
  if (file != NULL) (void)fclose(file);
  CHECK(count >= 8);
}

static void test_reader_refuses(void) {
  uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 'a'}, nul[] = {2, 0, 0, 0, 'a', 0}, over[] = {3, 0, 0, 0, 'a', 'b', 'c'}, rest[] = {0, 0, 0, 0, 1};
  struct reader reader = {.data = huge, .size = sizeof(huge)};
  CHECK(read_string(&reader, 1000) == NULL && reader.failed);
  reader = (struct reader){.data = nul, .size = sizeof(nul)};
  CHECK(read_string(&reader, 1000) == NULL && reader.failed);
  reader = (struct reader){.data = over, .size = sizeof(over)};
  CHECK(read_string(&reader, 2) == NULL && reader.failed);
  reader = (struct reader){.data = rest, .size = sizeof(rest)};
  CHECK(strcmp(read_string(&reader, 2), "") == 0 && !reader_finished(&reader));
  reader = (struct reader){.data = over, .size = sizeof(over)};
  CHECK(read_bytes(&reader, sizeof(over)) == over && reader_finished(&reader) && read_bytes(&reader, 1) == NULL && reader.failed);
  reader = (struct reader){.data = over, .size = sizeof(over)};
  CHECK(read_bytes(&reader, sizeof(over) + 1) == NULL && reader.failed && read_bytes(&reader, 1) == NULL);
  reader = (struct reader){.data = rest, .size = 3};
  CHECK(read_u32(&reader) == 0 && reader.failed && read_u64(&reader) == 0 && !reader_finished(&reader));
  uint8_t header_bytes[FRAME_HEADER_SIZE] = {0, 0, 0, 0x80};
  struct frame_header header;
  CHECK(!frame_decode(header_bytes, &header));
}

static void test_writer_is_bounded(void) {
  static struct writer writer;
  static char text[WRITER_CAPACITY];
  memset(text, 'x', sizeof(text) - 1);
  writer_reset(&writer);
  write_string(&writer, text);
  CHECK(writer.failed);
  errno = 0;
  CHECK(send_frame(-1, (struct frame_header){0}, &writer) < 0 && errno == EMSGSIZE);
}

static void test_passwd_lines(void) {
  struct account account = {0};
  char good[] = "web:x:33:34:www data:/var/www:/bin/sh", no_home[] = "a:x:1:1:", big[] = "a:x:65536:1::/:", minus[] = "a:x:-1:1::/:",
       relative[] = "a:x:1:1::tmp:/bin/sh", empty[] = "", colons[] = ":::::::", word[] = "a:x:1b:1::/:";
  CHECK(passwd_line_decode(good, &account) && account.uid == 33 && account.gid == 34 && strcmp(account.home, "/var/www") == 0);
  CHECK(!passwd_line_decode(no_home, &account) && !passwd_line_decode(big, &account) && !passwd_line_decode(minus, &account));
  CHECK(!passwd_line_decode(empty, &account) && !passwd_line_decode(colons, &account) && !passwd_line_decode(word, &account));
  CHECK(passwd_line_decode(relative, &account) && strcmp(account.home, "/") == 0);
}

static void test_exec_request_limits(void) {
  static struct exec_request request;
  uint8_t bytes[64] = {0};
  struct reader reader = {.data = bytes, .size = 28}; /* no arguments */
  CHECK(!exec_request_decode(&request, &reader));
  bytes[24] = 0xff;
  bytes[25] = 0xff;
  reader = (struct reader){.data = bytes, .size = 28}; /* more arguments than there may be */
  CHECK(!exec_request_decode(&request, &reader));
}

static void test_format(void) {
  char small[4];
  CHECK(format(small, sizeof(small), "%d", 123) == 0 && strcmp(small, "123") == 0);
  CHECK(format(small, sizeof(small), "%d", 1234) < 0 && errno == ENAMETOOLONG);
}

static uint64_t boot_ms(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_BOOTTIME, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void test_deadline(void) {
  int timer = deadline_open();
  struct pollfd expired = {.fd = timer, .events = POLLIN};
  CHECK(timer >= 0 && !deadline_has_passed(timer));
  CHECK(deadline_set(timer, boot_ms() + 60000) == 0 && deadline_set(timer, 0) == 0);
  CHECK(poll(&expired, 1, 20) == 0);
  CHECK(deadline_set(timer, (uint64_t)1 << 53) == 0 && !deadline_has_passed(timer));
  CHECK(deadline_set(timer, boot_ms() + 20) == 0 && !deadline_has_passed(timer));
  CHECK(poll(&expired, 1, 5000) == 1 && deadline_has_passed(timer));
  /* What has struck can neither be put off nor taken away. */
  CHECK(deadline_set(timer, boot_ms() + 60000) < 0 && errno == ETIME);
  CHECK(deadline_set(timer, 0) < 0 && errno == ETIME && deadline_has_passed(timer));
  (void)close(timer);
  timer = deadline_open();
  CHECK(deadline_set(timer, 1) == 0 && deadline_has_passed(timer)); /* a time that is over */
  (void)close(timer);
  CHECK(deadline_set(-1, 1) < 0 && errno == EBADF && deadline_of(-1) < 0);
}

int main(void) {
  test_deadline();
  test_shared_vectors();
  test_reader_refuses();
  test_writer_is_bounded();
  test_passwd_lines();
  test_exec_request_limits();
  test_format();
  test_netlink();
  (void)printf("%d passed, %d failed\n", checks_passed, checks_failed);
  return checks_failed == 0 ? 0 : 1;
}
