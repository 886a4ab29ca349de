// The last words of a program that can neither do a call nor hand it on: one CNI error on stdout.
#include <stdio.h>
#include <stdlib.h>

enum { TRY_AGAIN = 11, IO_FAILURE = 5 };

static inline void say_escaped(const char *text) {
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        putchar((unsigned char)*text < 0x20 ? ' ' : *text);
    }
}

_Noreturn static inline void fail(int code, const char *message, const char *details) {
    printf("{\"code\": %d, \"msg\": \"", code), say_escaped(message);
    printf("\", \"details\": \""), say_escaped(details), printf("\"}\n");
    fflush(stdout);
    _Exit(1);
}
