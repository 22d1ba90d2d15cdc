package redisserver

import (
	"bufio"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// replyTimeout bounds one look at whether Redis is ready.
const replyTimeout = 2 * time.Second

// ready tells whether the Redis with that process id listens on the port and
// has loaded its data. The id matters: while several programs look for a free
// port, a stranger's Redis may answer on ours.
func ready(ctx context.Context, password string, pid, port int) bool {
	info, err := serverInfo(ctx, password, port)
	if err != nil {
		return false
	}
	return info["process_id"] == strconv.Itoa(pid) && info["loading"] == "0"
}

// serverInfo asks a Redis for what it says about itself. It speaks the
// protocol by hand: a client library would pool, retry and log on top.
func serverInfo(ctx context.Context, password string, port int) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, replyTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	commands := "INFO\r\nQUIT\r\n"
	if password != "" {
		commands = "AUTH " + password + "\r\n" + commands
	}
	if _, err := io.WriteString(conn, commands); err != nil {
		return nil, err
	}
	// After QUIT the server closes: what it sent until then is the answer.
	info := make(map[string]string)
	lines := bufio.NewScanner(io.LimitReader(conn, 1<<20))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok {
			info[key] = value
		}
	}
	return info, lines.Err()
}
