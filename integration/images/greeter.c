/* The one program of the distroless sample: answers every connection to port 8080 with its greeting. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void end(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    signal(SIGTERM, end);
    char greeting[256];
    int file = open("/srv/greeting.txt", O_RDONLY);
    ssize_t length = read(file, greeting, sizeof greeting);
    if (length < 0) {
        perror("/srv/greeting.txt");
        return 1;
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 16) < 0) {
        perror("port 8080");
        return 1;
    }
    puts("greeting on port 8080");
    fflush(stdout);
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection >= 0) {
            if (write(connection, greeting, (size_t)length) < 0) {
                perror("write");
            }
            close(connection);
        }
    }
}
