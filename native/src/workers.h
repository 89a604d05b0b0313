/*
 * Sessions that are used again. A fork costs far more than a command's other parts, so a session that has answered, and has no process left
 * to look after, waits for another connection instead of ending. Init keeps the list of them; it alone decides who is to accept a connection
 * and who ends. Until a session has accepted one it is still the listener's, so that none can be lost with a session that dies.
 *
 * What a hostile command can do to a session that waits is what it can do to init, from which a new one would be forked: it has the same user
 * and the same rights, and neither is dumpable, so nobody may trace it, read its memory or take its descriptors. What can be changed
 * from outside all the same (limits, priority, processors, being stopped) is compared with init's own before each connection.
 *
 * They speak by event counters, since a sandbox would see sockets in its /proc/net/unix.
 */
#ifndef SQ_WORKERS_H
#define SQ_WORKERS_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { MAX_WORKERS = 8 };

/* How init and a session speak; -1 both where the session is to be used once only. */
struct worker_link {
  int order; /* init's words */
  int report; /* the session's */
};

/* Makes the link to a session that is to be forked. */
struct worker_link workers_link(void);

/* Keeps a session that was forked. */
void workers_add(pid_t pid, struct worker_link link);

/* Tells a session that waits to accept a connection, of which there must be one; false when nobody waits. */
bool workers_accept(void);

/* Whether one was told to and has not done it yet: nobody else may accept meanwhile. */
bool workers_accepting(void);

/* A child of init's was reaped. */
void workers_forget(pid_t pid);

/*
 * Hears what they say, lets go who has waited for long, ends who does not do what it was told. To be called at each turn of init's loop.
 */
void workers_tick(void);

/* Fills in whom to listen to; returns how many, and in `timeout_ms` when to tick at the latest, or -1. */
size_t workers_watch(struct pollfd watched[MAX_WORKERS], int *timeout_ms);

/* In a forked session: closes the links to all others. */
void workers_leave(void);

/* In a session: waits for its next connection. Ends the process when init lets it go. */
int worker_next(struct worker_link link, int listener);

#endif
