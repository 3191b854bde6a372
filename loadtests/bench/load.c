// A load client for loopback: connections that ask, read and check their answer, and ask again. Prints one JSON object.
//
//   load port=P body=FILE [conns=64] [seconds=5] [rate=R] [timeout=20] [path=/v1/chat/completions] [stream=1]
//        [events=64] [anthropic=1]
//
// The mark @n and twelve digits stand twice in FILE; each request has its own number there, and its answer must say it.
// Without a rate, a connection asks again as soon as it has its answer; with one, requests begin at fixed times whether
// or not answers came, and their latency counts from then. All connections open at once. Times in the report are ms.
#include "common.h"
#include "check.h"

enum { CLOSED, CONNECTING, IDLE, BUSY };
enum { LONGEST_WAIT_NS = 50000000, LOOK_FOR_LATE_NS = 100000000 };

typedef struct {
  int fd, state;
  bool blocked;
  Buffer out;
  size_t sent;
  uint64_t began_ns, asked_ns;
  Answer answer;
} Conn;

typedef struct {
  float *at;
  size_t len, room;
} Samples;

static struct {
  int port, conns, events;
  double seconds, rate, timeout_s;
  bool stream, anthropic;
  const char *body_file, *path;
} opt = {.conns = 64, .events = 64, .seconds = 5, .timeout_s = 20, .path = "/v1/chat/completions"};
static Buffer request;
static size_t nonce_at[2];
static Conn *conns;
static int ep, active, *idle, idle_count;
static bool stopping;
static uint64_t start_ns, end_ns, next_ns;
static unsigned long asked, good, events_seen, faults[KINDS];
static char first_fault[200];
static Samples latency, added, ttft, delay;

// ---- figures

static void add(Samples *s, double ms) {
  if (s->len == s->room) {
    s->room = s->room ? s->room * 2 : 65536;
    if ((s->at = realloc(s->at, s->room * sizeof *s->at)) == NULL) die("memory");
  }
  s->at[s->len++] = (float)ms;
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static void print_samples(const char *name, Samples *s) {
  if (s->len == 0) {
    printf(",\"%s\":null", name);
    return;
  }
  qsort(s->at, s->len, sizeof *s->at, ascending);
  size_t p99 = s->len * 99 / 100;
  printf(",\"%s\":{\"p50\":%.4f,\"p99\":%.4f,\"max\":%.4f}", name, s->at[s->len / 2], s->at[p99], s->at[s->len - 1]);
}

static void print_report(double seconds) {
  printf("{\"asked\":%lu,\"good\":%lu,\"events\":%lu,", asked, good, events_seen);
  printf("\"seconds\":%.4f,\"per_second\":%.2f,\"errors\":{", seconds, (double)good / seconds);
  const char *comma = "";
  for (int kind = 1; kind < KINDS; kind++) {
    if (faults[kind]) printf("%s\"%s\":%lu", comma, KIND_NAMES[kind], faults[kind]), comma = ",";
  }
  printf("},\"first_error\":\"%s\",\"request_bytes\":%zu", first_fault, request.len);
  print_samples("latency_ms", &latency);
  print_samples("added_ms", &added);
  print_samples("ttft_ms", &ttft);
  print_samples("delay_ms", &delay);
  printf("}\n");
}

static void word_seen(uint64_t written_ns) { add(&delay, (double)(now_ns() - written_ns) / 1e6); }

// Keeps the first wrong answer's end, in characters that JSON takes as they are.
static void note(const Answer *a) {
  if (*first_fault) return;
  size_t n = (size_t)snprintf(first_fault, sizeof first_fault, "%s, status %d: ", KIND_NAMES[a->wrong], a->status);
  for (size_t i = a->body.len > 120 ? a->body.len - 120 : 0; i < a->body.len && n < sizeof first_fault - 1; i++) {
    char byte = a->body.at[i];
    first_fault[n++] = byte < 32 || byte > 126 || byte == '"' || byte == '\\' ? ' ' : byte;
  }
}

// ---- connections

static void hang_up(Conn *c) {
  if (c->state != CLOSED) close(c->fd);
  c->state = CLOSED;
  c->blocked = false;
}

static void dial(Conn *c) {
  struct sockaddr_in a = loopback(opt.port);
  if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0) die("socket");
  no_delay(c->fd);
  c->state = CONNECTING;
  c->blocked = true;
  // A refusal that is known at once shows as an event, too.
  (void)!connect(c->fd, (void *)&a, sizeof a);
  watch(ep, c->fd, EPOLL_CTL_ADD, true, c);
}

static void send_rest(Conn *c) {
  while (c->sent < c->out.len) {
    ssize_t n = send(c->fd, c->out.at + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
    if (n < 0) {  // what is wrong, if not just full, shows when reading
      if (errno == EAGAIN && !c->blocked) watch(ep, c->fd, EPOLL_CTL_MOD, true, c), c->blocked = true;
      return;
    }
    c->sent += (size_t)n;
  }
  if (c->blocked) watch(ep, c->fd, EPOLL_CTL_MOD, false, c);
  c->blocked = false;
}

static void ask(Conn *c, uint64_t began_ns) {
  active++;
  expect(&c->answer, ++asked);
  c->began_ns = began_ns;
  c->asked_ns = now_ns();
  c->out.len = c->sent = 0;
  put(&c->out, request.at, request.len);
  for (int i = 0; i < 2; i++) memcpy(c->out.at + nonce_at[i], c->answer.nonce, NONCE_LEN);
  if (c->state == CLOSED) {
    dial(c);
    return;
  }
  c->state = BUSY;
  send_rest(c);
}

// The connection has its answer, or never will: asks again, waits for the next start, or ends.
static void next(Conn *c) {
  active--;
  if (c->answer.wrong == CONNECT || c->answer.wrong == TIMEOUT) hang_up(c);
  if (c->state != CLOSED) c->state = IDLE;
  if (stopping || c->answer.wrong == CONNECT) return;  // where nobody listens, asking again would only spin
  if (opt.rate > 0) idle[idle_count++] = (int)(c - conns);
  else ask(c, now_ns());
}

static void conclude(Conn *c) {
  Answer *a = &c->answer;
  uint64_t t = now_ns();
  if (a->wrong == FINE && opt.stream) check_stream(a, opt.events - 3);
  if (a->wrong == FINE && !opt.stream) check_complete(a, opt.anthropic);
  events_seen += (unsigned long)a->events;
  if (a->wrong == FINE) {
    double ms = (double)(t - c->began_ns) / 1e6;
    good++;
    add(&latency, ms);
    if (opt.stream) add(&ttft, (double)(a->first_ns - c->began_ns) / 1e6);
    else add(&added, ms - (double)a->inside_ns / 1e6);
  } else {
    faults[a->wrong]++;
    note(a);
  }
  if (a->close || a->part != WHOLE) hang_up(c);
  next(c);
}

static void give_up(Conn *c, int kind) {
  wrong(&c->answer, kind);
  hang_up(c);
  conclude(c);
}

static void on_readable(Conn *c) {
  static char bytes[1 << 18];
  for (;;) {
    ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (c->state != BUSY) {  // closed while idle, which a server may, or bytes that nobody asked for
      if (n > 0) faults[FRAMING]++;
      hang_up(c);
      return;
    }
    if (n <= 0) {
      give_up(c, CUT);
      return;
    }
    Answer *a = &c->answer;
    ssize_t used = 0;
    while (used < n && a->part != WHOLE && a->wrong != FRAMING)
      used += (ssize_t)take(a, bytes + used, (size_t)(n - used));
    if (opt.stream && a->status == 200) check_lines(a, opt.anthropic, word_seen);
    if (used < n) wrong(a, FRAMING);
    if (a->part == WHOLE || a->wrong == FRAMING) {
      conclude(c);
      return;
    }
    if (n < (ssize_t)sizeof bytes) return;
  }
}

static void on_event(Conn *c, uint32_t what) {
  if (c->state == CONNECTING) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      give_up(c, CONNECT);
      return;
    }
    c->state = BUSY;
  }
  if (c->state == BUSY && c->blocked && (what & EPOLLOUT)) send_rest(c);
  if (c->state != CLOSED && (what & (EPOLLIN | EPOLLHUP | EPOLLERR))) on_readable(c);
}

// ---- run

static void begin_due(uint64_t t) {
  uint64_t every_ns = (uint64_t)(1e9 / opt.rate);
  while (idle_count > 0 && next_ns <= t && next_ns < end_ns) {
    ask(&conns[idle[--idle_count]], next_ns);
    next_ns += every_ns;
  }
}

static void end_late(void) {
  uint64_t t = now_ns();
  for (Conn *c = conns; c < conns + opt.conns; c++) {
    bool waits = c->state == BUSY || c->state == CONNECTING;
    if (waits && t - c->asked_ns > (uint64_t)(opt.timeout_s * 1e9)) give_up(c, TIMEOUT);
  }
}

static void run(void) {
  struct epoll_event events[512];
  start_ns = next_ns = now_ns();
  end_ns = start_ns + (uint64_t)(opt.seconds * 1e9);
  for (int i = 0; i < opt.conns; i++) {
    if (opt.rate > 0) idle[idle_count++] = i;
    else ask(&conns[i], now_ns());
  }
  for (uint64_t looked_ns = start_ns; active > 0 || (opt.rate > 0 && !stopping);) {
    uint64_t t = now_ns();
    stopping = t >= end_ns;
    if (opt.rate > 0 && !stopping) begin_due(t);
    struct timespec wait = {0, LONGEST_WAIT_NS};
    bool starts_soon = opt.rate > 0 && !stopping && idle_count > 0 && next_ns < t + LONGEST_WAIT_NS;
    if (starts_soon) wait.tv_nsec = next_ns > t ? (long)(next_ns - t) : 0;
    int n = epoll_pwait2(ep, events, 512, &wait, NULL);
    for (int i = 0; i < n; i++) on_event(events[i].data.ptr, events[i].events);
    if (t - looked_ns > LOOK_FOR_LATE_NS) end_late(), looked_ns = t;
  }
}

// The head is what the official Python SDK sends: the same each time, but for the length.
static void prepare(void) {
  Buffer body = {0};
  FILE *file = fopen(opt.body_file, "rb");
  if (file == NULL) die(opt.body_file);
  for (size_t n; (n = fread(grow(&body, 65536), 1, 65536, file)) > 0;) body.len += n;
  fclose(file);
  char head[2048];
  int n = snprintf(head, sizeof head,
                   "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: gzip, deflate, br\r\n"
                   "Connection: keep-alive\r\nauthorization: Bearer this-is-no-key-0123456789abcdef\r\n"
                   "accept: application/json\r\ncontent-type: application/json\r\n"
                   "user-agent: OpenAI/Python 3.54.0\r\nx-stainless-lang: python\r\n"
                   "x-stainless-package-version: 3.54.0\r\nx-stainless-os: Linux\r\nx-stainless-arch: x64\r\n"
                   "x-stainless-runtime: CPython\r\nx-stainless-runtime-version: 3.11.7\r\nx-stainless-async: false\r\n"
                   "x-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\nContent-Length: %zu\r\n\r\n",
                   opt.path, opt.port, body.len);
  put(&request, head, (size_t)n);
  put(&request, body.at, body.len);
  const char *end = request.at + request.len, *first = memmem(request.at, request.len, MARK, 2), *last = first;
  for (const char *at = first; at != NULL; at = memmem(at + 1, (size_t)(end - at - 1), MARK, 2)) last = at;
  if (first == NULL || last == first || end - last < NONCE_LEN) {
    fprintf(stderr, "no two marks in %s\n", opt.body_file);
    exit(2);
  }
  nonce_at[0] = (size_t)(first - request.at);
  nonce_at[1] = (size_t)(last - request.at);
}

static void options(int count, char **words) {
  for (int i = 1; i < count; i++) {
    char *value = strchr(words[i], '=');
    size_t n = value ? (size_t)(++value - words[i]) : 0;
    if (n && strncmp(words[i], "port=", n) == 0) opt.port = atoi(value);
    else if (n && strncmp(words[i], "body=", n) == 0) opt.body_file = value;
    else if (n && strncmp(words[i], "conns=", n) == 0) opt.conns = atoi(value);
    else if (n && strncmp(words[i], "seconds=", n) == 0) opt.seconds = atof(value);
    else if (n && strncmp(words[i], "rate=", n) == 0) opt.rate = atof(value);
    else if (n && strncmp(words[i], "timeout=", n) == 0) opt.timeout_s = atof(value);
    else if (n && strncmp(words[i], "path=", n) == 0) opt.path = value;
    else if (n && strncmp(words[i], "events=", n) == 0) opt.events = atoi(value);
    else if (n && strncmp(words[i], "stream=", n) == 0) opt.stream = atoi(value) != 0;
    else if (n && strncmp(words[i], "anthropic=", n) == 0) opt.anthropic = atoi(value) != 0;
    else fprintf(stderr, "unknown option %s\n", words[i]), exit(2);
  }
  bool bounded = opt.conns > 0 && opt.conns <= 20000 && opt.seconds <= 600 && opt.timeout_s <= 600;
  if (opt.port < 1 || opt.body_file == NULL || !bounded)
    fprintf(stderr, "port, body, conns, seconds or timeout\n"), exit(2);
}

int main(int count, char **words) {
  signal(SIGPIPE, SIG_IGN);
  options(count, words);
  prepare();
  conns = calloc((size_t)opt.conns, sizeof *conns);
  idle = calloc((size_t)opt.conns, sizeof *idle);
  if (conns == NULL || idle == NULL || (ep = epoll_create1(0)) < 0) die("start");
  run();
  print_report((double)(now_ns() - start_ns) / 1e9);
  return 0;
}
