/* The operations on the sandboxes' network. */
#ifndef SQ_HOST_NETWORK_H
#define SQ_HOST_NETWORK_H

#include "host_ops.h"

/* Has the event loop watch what the firewall tells. */
int host_watch_firewall(const struct host *host, struct failure *failure);

int op_net_update(struct host *host, struct reader *reader, struct failure *failure);
int op_net_stats(struct host *host, struct reader *reader, struct failure *failure);
int op_net_flows(struct host *host, struct reader *reader, struct failure *failure);
int op_net_cut(struct host *host, struct reader *reader, struct failure *failure);
int op_net_shape(struct host *host, struct reader *reader, struct failure *failure);
int op_net_gate(struct host *host, struct reader *reader, struct failure *failure);
int op_net_close(struct host *host, struct reader *reader, struct failure *failure);

#endif
