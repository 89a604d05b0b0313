/* The sources themselves, so that their own functions can be called; what they send is kept here, and what they receive is prepared here. */
#include "../src/kernel_api.h"

#include "test_netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "check.h"

static uint8_t sent[4 * 1024 * 1024];
static size_t sent_size;
static _Alignas(struct nlmsghdr) uint8_t prepared[4096];
static size_t prepared_size;

static ssize_t fake_sendto(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
  CHECK(fd == -1 && flags == 0 && to != NULL && length == sizeof(struct sockaddr_nl) && size <= sizeof(sent));
  memcpy(sent, bytes, size);
  sent_size = size;
  return (ssize_t)size;
}

/* What is prepared, once. */
static ssize_t fake_recvfrom(int fd, void *buffer, size_t capacity, int flags, struct sockaddr *from, socklen_t *length) {
  size_t size = prepared_size;
  CHECK(fd == -1 && flags == MSG_TRUNC && from != NULL && length != NULL && size <= capacity);
  prepared_size = 0;
  errno = EAGAIN;
  if (size > 0) memcpy(buffer, prepared, size);
  return size == 0 ? -1 : (ssize_t)size;
}

#define sendto fake_sendto
#define recvfrom fake_recvfrom
#include "../src/netlink.c"

#include "../src/nftables.c"

#include "../src/firewall.c"

static void test_messages(void) {
  uint8_t bytes[256];
  struct nl_batch batch;
  const struct nfgenmsg header = {.nfgen_family = 7};
  memset(bytes, 0xee, sizeof(bytes));
  nl_start(&batch, bytes, sizeof(bytes));
  uint32_t before = batch.before;
  CHECK(nl_message(&batch, 0x0a0c, NLM_F_ACK, &header, sizeof(header)) == bytes + 16);
  nl_put_u8(&batch, 1, 0xab);
  nl_put_text(&batch, 2, "abc");
  size_t outer = nl_nest(&batch, 3);
  nl_put_be32(&batch, 4, 0x01020304);
  nl_put_be64(&batch, 5, 0x0102030405060708);
  nl_end(&batch, outer);
  (void)nl_message(&batch, 0x11, 0, NULL, 0);
  static const uint8_t expected[] = {
      72, 0, 0, 0, 0x0c, 0x0a, 5,    0, 0,   0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0,             /* message: length, type, flags, number, family */
      5,  0, 1, 0, 0xab, 0,    0,    0,                                                   /* one byte, filled up to four */
      8,  0, 2, 0, 'a',  'b',  'c',  0,                                                   /* text, with its end */
      24, 0, 3, 0x80, 8, 0, 4, 0, 1, 2, 3, 4, 12, 0, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8,        /* nested: both */
  };
  CHECK(batch.size == 60 + 16 && !batch.failed);
  uint8_t copy[sizeof(expected)];
  memcpy(copy, bytes, sizeof(copy));
  memset(copy + 8, 0, 4); /* the number of the message */
  copy[0] = 72;
  CHECK(memcmp(copy, expected, sizeof(expected)) == 0);
  uint32_t lengths[2], number;
  memcpy(&lengths[0], bytes, 4);
  memcpy(&lengths[1], bytes + 60, 4);
  memcpy(&number, bytes + 8, 4);
  CHECK(lengths[0] == 60 && lengths[1] == 16 && number == before + 1);
  CHECK(batch.awaited == before + 1 && batch.sequence == before + 2);
}

/* With every capacity that is too small it fails, and touches nothing behind its end. */
static void test_overflow(void) {
  for (size_t capacity = 0; capacity <= 80; capacity++) {
    uint8_t *bytes = malloc(capacity + 1); /* the sanitizer sees a step beyond */
    struct nl_batch batch;
    CHECK(bytes != NULL);
    if (bytes == NULL) return;
    bytes[capacity] = 0x77;
    nl_start(&batch, bytes, capacity);
    const struct nfgenmsg inet = {.nfgen_family = NFPROTO_INET};
    (void)nl_message(&batch, 1, NLM_F_ACK, &inet, sizeof(inet));
    size_t nest = nl_nest(&batch, 1);
    nl_put(&batch, 2, "0123456789abcdefghijklm", 23);
    nl_end(&batch, nest);
    nl_put_u32(&batch, 3, 1);
    CHECK(batch.failed == (capacity < 20 + 4 + 28 + 8) && batch.size <= capacity && bytes[capacity] == 0x77);
    sent_size = 0;
    errno = 0;
    if (batch.failed) CHECK(nl_transact(-1, &batch, 0) < 0 && errno == EMSGSIZE && sent_size == 0);
    free(bytes);
  }
}

static void test_large_attributes(void) {
  static uint8_t bytes[200000], data[70000];
  struct nl_batch batch;
  nl_start(&batch, bytes, sizeof(bytes));
  nl_put(&batch, 1, data, UINT16_MAX - 4);
  CHECK(!batch.failed);
  nl_put(&batch, 1, data, UINT16_MAX - 3);
  CHECK(batch.failed);
  nl_start(&batch, bytes, sizeof(bytes));
  size_t nest = nl_nest(&batch, 1);
  for (int i = 0; i < 2; i++) nl_put(&batch, 1, data, 40000);
  nl_end(&batch, nest);
  CHECK(batch.failed);
}

static void test_find(void) {
  static const uint8_t good[] = {5, 0, 1, 0, 0xab, 0, 0, 0, 6, 0, 2, 0x80, 1, 2, 0, 0, 4, 0, 3, 0};
  static const uint8_t unfilled[] = {5, 0, 1, 0, 0xab}, small[] = {3, 0, 1, 0}, large[] = {9, 0, 1, 0, 0, 0, 0, 0};
  size_t length = 99;
  CHECK(nl_find(good, sizeof(good), 1, &length) == good + 4 && length == 1);
  CHECK(nl_find(good, sizeof(good), 2, &length) == good + 12 && length == 2);
  CHECK(nl_find(good, sizeof(good), 3, &length) == good + 20 && length == 0);
  CHECK(nl_find(good, sizeof(good), 4, &length) == NULL && nl_find(good, 0, 1, &length) == NULL);
  CHECK(nl_find(unfilled, sizeof(unfilled), 1, &length) == unfilled + 4 && length == 1);
  CHECK(nl_find(unfilled, sizeof(unfilled), 2, &length) == NULL);
  CHECK(nl_find(small, sizeof(small), 1, &length) == NULL && nl_find(large, sizeof(large), 1, &length) == NULL);
}

static void test_steps(void) {
  static const _Alignas(struct nlmsghdr) uint8_t bytes[] = {17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9};
  size_t at = 0;
  CHECK(nl_step(bytes, sizeof(bytes), &at) == (const struct nlmsghdr *)bytes && at == 20);
  CHECK(nl_step(bytes, sizeof(bytes), &at) == NULL);
  at = 0;
  CHECK(nl_step(bytes, 16, &at) == NULL && nl_step(bytes, 15, &at) == NULL && at == 0);
}

/* Answers with an errno to the message of that number. */
static void answer(uint32_t number, int code) {
  struct {
    struct nlmsghdr head;
    int code;
  } message = {.head = {.nlmsg_len = sizeof(message), .nlmsg_type = NLMSG_ERROR, .nlmsg_seq = number}, .code = code == INT32_MIN ? code : -code};
  memcpy(prepared + prepared_size, &message, sizeof(message));
  prepared_size += sizeof(message);
}

static void test_answers(void) {
  uint8_t bytes[256];
  static const struct {
    int first, second, tolerated, expected;
  } cases[] = {
      {0, 0, 0, 0},
      {ENOENT, 0, 0, ENOENT},
      {0, ENOENT, 0, ENOENT},
      {0, ENOENT, ENOENT, 0},
      {EEXIST, ENOENT, 0, EEXIST},
      {ENOENT, EPERM, ENOENT, EPERM},
      {INT32_MIN, 0, 0, EPROTO},
      {-5, 0, 0, EPROTO},
  };
  for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
    struct nl_batch batch;
    nl_start(&batch, bytes, sizeof(bytes));
    (void)nl_message(&batch, 1, NLM_F_ACK, NULL, 0);
    (void)nl_message(&batch, 2, NLM_F_ACK, NULL, 0);
    prepared_size = 0;
    answer(batch.before, EIO); /* late, to an earlier one */
    answer(batch.before + 1, cases[i].first);
    answer(batch.before + 2, cases[i].second);
    int result = nl_transact(-1, &batch, cases[i].tolerated);
    CHECK(result == (cases[i].expected == 0 ? 0 : -1) && (result == 0 || errno == cases[i].expected));
  }
  struct nl_batch batch;
  nl_start(&batch, bytes, sizeof(bytes));
  (void)nl_message(&batch, 1, NLM_F_ACK, NULL, 0);
  prepared_size = 0;
  answer(batch.before, 0);
  CHECK(nl_transact(-1, &batch, 0) < 0 && errno == ETIMEDOUT);
}

/* An address of either family that ends with a number. */
static struct address numbered(uint32_t number, bool ipv6) {
  const struct address first = {.bytes = {0xfd}};
  return ipv6 ? address_behind(&first, number) : address_of_ipv4(number);
}

static void put_direction(struct nl_batch *batch, uint16_t type, struct address from, struct address to, uint16_t from_port,
                          uint16_t to_port) {
  uint16_t ports[2] = {htobe16(from_port), htobe16(to_port)};
  size_t tuple = nl_nest(batch, type), ip = nl_nest(batch, CTA_TUPLE_IP);
  put_address(batch, true, &from);
  put_address(batch, false, &to);
  nl_end(batch, ip);
  size_t proto = nl_nest(batch, CTA_TUPLE_PROTO);
  nl_put_u8(batch, CTA_PROTO_NUM, IPPROTO_TCP);
  nl_put(batch, CTA_PROTO_SRC_PORT, &ports[0], 2);
  nl_put(batch, CTA_PROTO_DST_PORT, &ports[1], 2);
  nl_end(batch, proto);
  nl_end(batch, tuple);
}

static void test_flows(void) {
  static const struct {
    uint32_t source, answers_from;
    uint16_t answers_port;
    bool taken, redirected;
  } cases[] = {
      {1, 2, 80, true, false}, {1, 3, 80, true, true}, {1, 2, 30080, true, true}, {9, 2, 80, false, false},
  };
  for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
    bool ipv6 = i % 2 == 1;
    size_t at = i / 2;
    uint8_t bytes[256];
    struct flow flows[1];
    struct nl_batch batch;
    const struct nfgenmsg header = {0};
    struct address two = numbered(2, ipv6);
    struct flow_search search = {.source = numbered(1, ipv6), .flows = flows};
    nl_start(&batch, bytes, sizeof(bytes));
    memcpy(grow(&batch, sizeof(header)), &header, sizeof(header));
    put_direction(&batch, CTA_TUPLE_ORIG, numbered(cases[at].source, ipv6), two, 4000, 80);
    put_direction(&batch, CTA_TUPLE_REPLY, numbered(cases[at].answers_from, ipv6), numbered(7, ipv6), cases[at].answers_port, 4000);
    take_flow(bytes, batch.size, &search);
    CHECK(search.count == cases[at].taken);
    if (search.count == 0) continue;
    CHECK(address_equal(&flows[0].destination, &two) && flows[0].source_port == 4000 && flows[0].destination_port == 80);
    CHECK(flows[0].protocol == IPPROTO_TCP && flows[0].redirected == cases[at].redirected);
  }
}

/* What is written is read again, and the families are told apart. */
static void test_addresses(void) {
  static struct writer writer;
  struct address four = numbered(0x0a000001, false), six = numbered(0x0a000001, true), none = {.bytes = {0}};
  writer_reset(&writer);
  write_address(&writer, &four);
  write_address(&writer, &six);
  struct reader reader = {.data = writer.bytes + FRAME_HEADER_SIZE, .size = writer.size};
  struct address first = read_address(&reader), second = read_address(&reader);
  CHECK(reader_finished(&reader) && address_equal(&first, &four) && address_equal(&second, &six));
  CHECK(address_is_ipv4(&four) && !address_is_ipv4(&six) && address_is_none(&none) && !address_is_none(&four));
  CHECK(address_low(&four) == 0x0a000001 && address_low(&six) == 0x0a000001);
}

static void test_packets6(void) {
  uint8_t bytes[44] = {0x60, [6] = IPPROTO_TCP, [8] = 0xfd, [23] = 1, [24] = 0xfd, [39] = 2, [42] = 0x15, 0x38};
  struct logged_packet packet = {0};
  struct address one = numbered(1, true), two = numbered(2, true);
  CHECK(understand_packet(bytes, sizeof(bytes), &packet) && packet.destination_port == 5432 && packet.protocol == IPPROTO_TCP);
  CHECK(address_equal(&packet.source, &one) && address_equal(&packet.destination, &two));
  CHECK(understand_packet(bytes, 43, &packet) && packet.destination_port == 0);
  CHECK(!understand_packet(bytes, 39, &packet));
}

static void test_packets(void) {
  uint8_t bytes[24] = {0x45, [9] = IPPROTO_UDP, [12] = 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0x15, 0x38};
  struct logged_packet packet = {0};
  CHECK(understand_packet(bytes, sizeof(bytes), &packet) && packet.destination_port == 5432 && packet.protocol == IPPROTO_UDP);
  CHECK(address_low(&packet.source) == 0x0a000001 && address_low(&packet.destination) == 0x0a000002 && address_is_ipv4(&packet.source));
  CHECK(understand_packet(bytes, 23, &packet) && packet.destination_port == 0);
  CHECK(!understand_packet(bytes, 19, &packet));
  bytes[0] = 0x46; /* with options, the ports lie further behind */
  CHECK(understand_packet(bytes, sizeof(bytes), &packet) && packet.destination_port == 0);
  bytes[0] = 0x44;
  CHECK(!understand_packet(bytes, sizeof(bytes), &packet));
  bytes[0] = 0x65;
  CHECK(!understand_packet(bytes, sizeof(bytes), &packet));
}

static void write_element(struct writer *writer, uint32_t key_size, uint32_t kind) {
  write_u32(writer, 0);
  write_string(writer, "asking");
  write_u32(writer, key_size);
  for (uint32_t at = 0; at < key_size; at += 4) write_u32(writer, 0x0a);
  write_u32(writer, 0);
  write_u32(writer, kind);
  write_u32(writer, 5);
}

static int update(uint32_t count, uint32_t key_size, uint32_t kind, uint32_t elements, struct failure *failure) {
  static struct writer writer;
  writer_reset(&writer);
  write_u32(&writer, count);
  for (uint32_t i = 0; i < elements; i++) write_element(&writer, key_size, kind);
  struct reader reader = {.data = writer.bytes + FRAME_HEADER_SIZE, .size = writer.size};
  const struct firewall firewall = {-1, -1, -1};
  sent_size = prepared_size = 0;
  *failure = (struct failure){0};
  return firewall_update(&firewall, &reader, failure);
}

static void test_update(void) {
  struct failure failure;
  /* announced count, size of the key, kind, elements that are there */
  static const uint32_t bad[][4] = {{MAX_ELEMENTS + 1, 4, 0, 1}, {1, 0, 0, 1}, {1, MAX_KEY + 4, 0, 1},
                                    {1, 4, ELEMENT_KINDS, 1},    {2, 4, 0, 1}, {1, 4, 0, 2}};
  for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
    CHECK(update(bad[i][0], bad[i][1], bad[i][2], bad[i][3], &failure) < 0 && failure.code == EBADMSG && sent_size == 0);
  }
  CHECK(update(0, 4, 0, 0, &failure) == 0 && sent_size == 0);
  /* nobody answers; what was sent is a transaction of four messages, of which the last element's asks for an answer */
  CHECK(update(2, 8, ELEMENT_MARK, 2, &failure) < 0 && failure.code == ETIMEDOUT);
  size_t at = 0, count = 0, asking = 0;
  for (const struct nlmsghdr *message; (message = nl_step(sent, sent_size, &at)) != NULL; count++) {
    if ((message->nlmsg_flags & NLM_F_ACK) != 0) asking = asking * 10 + count;
  }
  CHECK(at == sent_size && count == 4 && asking == 2);
}

void test_netlink(void) {
  test_messages();
  test_overflow();
  test_large_attributes();
  test_find();
  test_steps();
  test_answers();
  test_flows();
  test_addresses();
  test_packets();
  test_packets6();
  test_update();
}
