// What upstream.c and load.c share: a clock, a growing buffer, a look into a head, sockets on loopback.
// Linux 5.11 or newer (epoll_pwait2: timers finer than a millisecond). One thread each; without memory they end.
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// A request carries this mark and twelve digits twice, near both ends of its body; the answer has to say both.
#define MARK "@n"
#define NONCE_LEN 14
// The last words of a complete answer: 'text' damage changes one, and the client compares them byte for byte.
#define ANSWER_TAIL \
  "The quick brown fox jumps over the lazy dog; a canned answer of a fake provider, long enough to look real."
// Nanoseconds of CLOCK_MONOTONIC as the upstream writes them, always this long.
#define STAMP "%019llu"
#define STAMP_LEN 19

typedef struct {
  char *at;
  size_t len, room;
} Buffer;

static inline void die(const char *what) {
  perror(what);
  exit(2);
}

static inline uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// Makes room for `more` bytes behind what is there, and some: comparing with a short text may look past the end.
// Returns where they go.
static inline char *grow(Buffer *b, size_t more) {
  if (b->len + more + 64 > b->room) {
    b->room = (b->len + more + 64) * 2;
    if ((b->at = realloc(b->at, b->room)) == NULL) die("memory");
  }
  return b->at + b->len;
}

static inline void put(Buffer *b, const void *bytes, size_t n) {
  memcpy(grow(b, n), bytes, n);
  b->len += n;
}

// Returns the value of header `name` in the head from `at` to `end`, or NULL.
static inline const char *header(const char *at, const char *end, const char *name) {
  size_t n = strlen(name);
  while (at < end) {
    const char *line_end = memchr(at, '\n', (size_t)(end - at));
    if (line_end == NULL) line_end = end;
    if ((size_t)(line_end - at) > n && strncasecmp(at, name, n) == 0 && at[n] == ':') {
      for (at += n + 1; *at == ' ';) at++;
      return at;
    }
    at = line_end + 1;
  }
  return NULL;
}

static inline struct sockaddr_in loopback(int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}

static inline void no_delay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline void watch(int ep, int fd, int how, bool writable, void *who) {
  struct epoll_event e = {.events = writable ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = who};
  if (epoll_ctl(ep, how, fd, &e) != 0) die("epoll_ctl");
}
