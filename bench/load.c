/*
 * load: an SMTP client that costs little and checks what it is told (one thread, epoll).
 *
 *   load PORT SESSIONS MESSAGES RECIPIENTS PER_CONNECTION PIPELINED ENFORCED RECIPIENT_FILE TEXT_FILE LATENCY_FILE
 *
 * RECIPIENT_FILE  a recipient a line, message i has lines i * RECIPIENTS and following. "-address": suppressed,
 *                 must be refused with 5xx if ENFORCED; "+address": must be accepted.
 * TEXT_FILE       the message, dot-stuffed, without the final dot; "X-Bench-Id: i" is put before it.
 * PIPELINED       1: MAIL, RCPT and DATA go in one write (RFC 2920); 0: each waits for the reply before it.
 * LATENCY_FILE    gets the microseconds of each message, from connect() for the first of a connection, else from
 *                 MAIL, to the reply to its dot.
 *
 * Prints: seconds, messages accepted, recipients accepted, recipients refused, replies that were wrong, CPU seconds,
 * and the first wrong reply.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum awaited { GREETING, HELLO, SENDER, RECIPIENT, GO_AHEAD, TAKEN, RESET, GOODBYE };

struct session {
    int fd, message, asked, answered, accepted, left;
    enum awaited awaited;
    double began;
    char *out;                     /* commands and message text not yet written */
    size_t out_length, out_written, out_room;
    char in[16384];
    size_t in_length;
};

static int messages, recipients, per_connection, pipelined, enforced, poller, port;
static int begun, open_sessions;
static char **person;              /* with their + or - */
static char *text;
static size_t text_length;
static FILE *latencies;
static long taken, accepted, refused, wrong;
static char first_wrong[300];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void complain(const char *about, const char *line)
{
    if (!wrong++)
        snprintf(first_wrong, sizeof first_wrong, "%s: %.250s", about, line);
}

/* ---- what goes out */

static void add(struct session *s, const char *octets, size_t length)
{
    if (s->out_length + length > s->out_room) {
        s->out_room = 2 * (s->out_length + length);
        if (!(s->out = realloc(s->out, s->out_room)))
            die("realloc");
    }
    memcpy(s->out + s->out_length, octets, length);
    s->out_length += length;
}

static void say(struct session *s, const char *format, ...)
{
    char line[1000];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    add(s, line, length);
}

static void interest(struct session *s, int how, int writing)
{
    struct epoll_event e = { .events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = s };
    if (epoll_ctl(poller, how, s->fd, &e))
        die("epoll_ctl");
}

static void flush(struct session *s, int was_blocked)
{
    while (s->out_written < s->out_length) {
        ssize_t n = send(s->fd, s->out + s->out_written, s->out_length - s->out_written, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN && !was_blocked)
                interest(s, EPOLL_CTL_MOD, 1);
            return;                /* any other error shows when reading */
        }
        s->out_written += n;
    }
    s->out_written = s->out_length = 0;
    if (was_blocked)
        interest(s, EPOLL_CTL_MOD, 0);
}

static const char *recipient(struct session *s, int n)
{
    return person[(long)s->message * recipients + n];
}

static void ask(struct session *s)
{
    say(s, "RCPT TO:<%s>\r\n", recipient(s, s->asked++) + 1);
}

static void begin_message(struct session *s, int on_new_connection)
{
    if (begun == messages || s->left == 0) {
        say(s, "QUIT\r\n");
        s->awaited = GOODBYE;
        return;
    }
    s->message = begun++;
    s->left--;
    s->asked = s->answered = s->accepted = 0;
    if (!on_new_connection)
        s->began = now();
    say(s, "MAIL FROM:<news@quillpdf.example>\r\n");
    if (pipelined) {
        while (s->asked < recipients)
            ask(s);
        say(s, "DATA\r\n");
    }
    s->awaited = SENDER;
}

static void end_message(struct session *s)
{
    fprintf(latencies, "%.0f\n", (now() - s->began) * 1e6);
    begin_message(s, 0);
}

static void call(struct session *s)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int on = 1;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (s->fd < 0)
        die("socket");
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    s->began = now();
    if (connect(s->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        die("connect");
    s->in_length = s->out_length = s->out_written = 0;
    s->left = per_connection;
    s->awaited = GREETING;
    interest(s, EPOLL_CTL_ADD, 0);
}

/* The connection is over: another one if there is more to send. */
static void hang_up(struct session *s)
{
    close(s->fd);
    s->fd = -1;
    if (begun < messages)
        call(s);
    else
        open_sessions--;
}

/* ---- what comes in */

static void judge_recipient(struct session *s, const char *line)
{
    const char *who = recipient(s, s->answered++);
    char wanted = enforced && *who == '-' ? '5' : '2';
    if (*line != wanted)
        complain(who, line);
    if (*line == '2') {
        s->accepted++;
        accepted++;
    } else {
        refused++;
    }
    if (!pipelined && s->asked < recipients) {
        ask(s);
    } else if (s->answered == recipients) {
        if (!pipelined)
            say(s, s->accepted ? "DATA\r\n" : "RSET\r\n");
        s->awaited = pipelined || s->accepted ? GO_AHEAD : RESET;
    }
}

static void judge(struct session *s, const char *line)
{
    switch (s->awaited) {
    case GREETING:
        if (*line != '2')
            complain("greeting", line);
        say(s, "EHLO bench.example\r\n");
        s->awaited = HELLO;
        break;
    case HELLO:
        if (*line != '2')
            complain("EHLO", line);
        begin_message(s, 1);
        break;
    case SENDER:
        if (*line != '2')
            complain("MAIL", line);
        if (!pipelined)
            ask(s);
        s->awaited = RECIPIENT;
        break;
    case RECIPIENT:
        judge_recipient(s, line);
        break;
    case GO_AHEAD:
        if (*line == '3') {
            say(s, "X-Bench-Id: %d\r\n", s->message);
            add(s, text, text_length);
            add(s, ".\r\n", 3);
            s->awaited = TAKEN;
        } else {
            if (s->accepted)
                complain("DATA", line);
            end_message(s);
        }
        break;
    case TAKEN:
        if (*line == '2')
            taken++;
        else
            complain("dot", line);
        end_message(s);
        break;
    case RESET:
        end_message(s);
        break;
    case GOODBYE:
        break;
    }
}

static void hear(struct session *s)
{
    ssize_t n = recv(s->fd, s->in + s->in_length, sizeof s->in - 1 - s->in_length, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        if (s->awaited != GOODBYE)
            complain("connection", n ? strerror(errno) : "closed by the server");
        hang_up(s);
        return;
    }
    s->in_length += n;
    s->in[s->in_length] = 0;
    char *line = s->in, *end;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        if (end - line > 3 && line[3] != '-') {
            if (s->awaited == GOODBYE) {
                hang_up(s);
                return;
            }
            judge(s, line);
        }
        line = end + 1;
    }
    s->in_length -= line - s->in;
    memmove(s->in, line, s->in_length);
    if (s->out_written == 0)
        flush(s, 0);
}

/* ---- all of it */

static void read_people(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[600];
    long wanted = (long)messages * recipients, n = 0;
    if (!file || !(person = calloc(wanted, sizeof *person)))
        die(path);
    for (; n < wanted && fgets(line, sizeof line, file); n++) {
        line[strcspn(line, "\r\n")] = 0;
        person[n] = strdup(line);
    }
    fclose(file);
    if (n < wanted) {
        fprintf(stderr, "%s: too few recipients\n", path);
        exit(1);
    }
}

static void read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        die(path);
    text_length = ftell(file);
    rewind(file);
    if (!(text = malloc(text_length)) || fread(text, 1, text_length, file) != text_length)
        die(path);
    fclose(file);
}

int main(int count, char **given)
{
    if (count != 11) {
        fprintf(stderr, "see the top of load.c\n");
        return 2;
    }
    port = atoi(given[1]);
    int sessions = atoi(given[2]);
    messages = atoi(given[3]);
    recipients = atoi(given[4]);
    per_connection = atoi(given[5]);
    pipelined = atoi(given[6]);
    enforced = atoi(given[7]);
    read_people(given[8]);
    read_text(given[9]);
    if (!(latencies = fopen(given[10], "w")))
        die(given[10]);
    if (sessions > messages)
        sessions = messages;
    struct session *all = calloc(sessions, sizeof *all);
    poller = epoll_create1(0);
    if (!all || poller < 0)
        die("start");
    double start = now(), last = start;
    long seen = 0;
    open_sessions = sessions;
    for (int i = 0; i < sessions; i++)
        call(&all[i]);
    while (open_sessions && wrong < 1000) {
        struct epoll_event events[256];
        int n = epoll_wait(poller, events, 256, 1000);
        for (int i = 0; i < n; i++) {
            struct session *s = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                flush(s, 1);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                hear(s);
        }
        if (taken + refused != seen) {
            seen = taken + refused;
            last = now();
        } else if (now() - last > 30) {
            complain("no progress", "for 30 s");
            break;
        }
    }
    double took = now() - start;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("%.4f %ld %ld %ld %ld %.3f %s\n", took, taken, accepted, refused, wrong,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6, first_wrong);
    return fclose(latencies) != 0;
}
