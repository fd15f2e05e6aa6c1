/* A program that needs musl's loader, for the image that has no other C library. */

#include <stdio.h>

int main(void) {
    puts("from musl");
    return 0;
}
