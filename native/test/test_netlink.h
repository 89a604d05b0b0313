/* Tests of the messages to and from the kernel. */
#ifndef SQ_TEST_NETLINK_H
#define SQ_TEST_NETLINK_H

void test_netlink(void);

#endif
