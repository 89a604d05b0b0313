/* Parts of messages to nftables, whose tables here are all of family inet. Source: linux/netfilter/nf_tables.h */
#ifndef SQ_NFTABLES_H
#define SQ_NFTABLES_H

#include <stddef.h>
#include <stdint.h>

#include "netlink.h"

/* A batch of changes is one transaction, between these two. */
void nft_begin(struct nl_batch *batch);
void nft_end(struct nl_batch *batch);

/* Opens a message; `message` is one of NFT_MSG_*. */
void nft_message(struct nl_batch *batch, int message, uint16_t flags);

/* A value within the attribute `type`. */
void nft_value(struct nl_batch *batch, uint16_t type, const void *value, size_t size);

/* Type of a message to a subsystem of netfilter. */
uint16_t nf_type(int subsystem, int message);

#endif
