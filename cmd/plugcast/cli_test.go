package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections/pgserver/pgtest"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// The tests of this file run commands as a person or a script does, and look at
// the exit code, at stdout and at stderr.

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

// plugcast runs a command with nothing in its environment but env.
func plugcast(t *testing.T, env []string, args ...string) result {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, path, args...)
	command.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); ctx.Err() != nil || err != nil && command.ProcessState == nil {
		t.Fatalf("plugcast %s: %v %v", strings.Join(args, " "), err, ctx.Err())
	}
	return result{command.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// wants checks the exit code and that stderr is one line that says something.
func (r result) wants(t *testing.T, code int, says string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d: %s", r.code, code, r.stderr)
	}
	if !strings.HasPrefix(r.stderr, "plugcast: ") || strings.Count(r.stderr, "\n") != 1 || !strings.HasSuffix(r.stderr, "\n") {
		t.Errorf("stderr must be one line of plugcast: %q", r.stderr)
	}
	if !strings.Contains(r.stderr, says) {
		t.Errorf("stderr must say %q: %q", says, r.stderr)
	}
	if r.stdout != "" {
		t.Errorf("stdout must be empty: %q", r.stdout)
	}
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	const (
		redis    = "PLUGCAST_REDIS_URL=redis://127.0.0.1:1"
		postgres = "PLUGCAST_POSTGRES_URL=postgres://u@127.0.0.1:1/d"
		secret   = "PLUGCAST_JWT_SECRET=" + testSecret
	)
	for name, c := range map[string]struct {
		env        []string
		args, says string
	}{
		"unknown command":       {nil, "dance", "dance"},
		"unknown flag":          {nil, "serve --dance", "--dance (see plugcast serve --help)"},
		"unknown subcommand":    {nil, "migrate down", "down"},
		"bad log level":         {nil, "serve --log-level loud", "loud"},
		"bad log format":        {nil, "serve --log-format xml", "xml"},
		"bad log level in env":  {[]string{"PLUGCAST_LOG_LEVEL=loud"}, "serve", "loud"},
		"missing flag":          {nil, "token --role viewer", "--system"},
		"bad role":              {[]string{secret}, "token --system s --role boss", "boss"},
		"bad system":            {[]string{secret}, "token --system a/b --role viewer", "--system"},
		"bad ttl":               {[]string{secret}, "token --system s --role viewer --ttl soon", "--ttl"},
		"ttl of nothing":        {[]string{secret}, "token --system s --role viewer --ttl 0s", "--ttl"},
		"ttl under a second":    {[]string{secret}, "token --system s --role viewer --ttl 999ms", "--ttl"},
		"ttl of centuries":      {[]string{secret}, "token --system s --role viewer --ttl 2000000h", "a hundred years"},
		"no secret":             {nil, "token --system s --role viewer", "PLUGCAST_JWT_SECRET"},
		"short secret":          {[]string{"PLUGCAST_JWT_SECRET=short"}, "token --system s --role viewer", "at least 32"},
		"short secret of serve": {[]string{redis, postgres, "PLUGCAST_JWT_SECRET=short"}, "serve", "at least 32"},
		"serve without Redis":   {[]string{secret, postgres}, "serve", "PLUGCAST_REDIS_URL"},
		"serve without a store": {[]string{secret, redis}, "serve", "PLUGCAST_POSTGRES_URL"},
		"scheme of Redis":       {[]string{secret, postgres}, "serve --redis-url http://h", "redis://"},
		"bad roles":             {[]string{secret, redis, postgres}, "serve --roles king", "king"},
		"secret key":            {[]string{secret, redis, postgres, "PLUGCAST_SECRET_KEY=aHVudGVyMg=="}, "serve", "secret key 1 has 7 bytes"},
		"public URL":            {[]string{secret, redis, postgres}, "serve --public-url plugs.example.com", "--public-url"},
		"an origin with a path": {[]string{secret, redis, postgres},
			"serve --allowed-origins https://a.example,https://b.example/app", `"https://b.example/app" can never match`},
		"an origin of the Web": {[]string{secret, redis, postgres, "PLUGCAST_ALLOWED_ORIGINS=https://*.net"},
			"serve", "anyone can register a name below net"},
		"a proxy by name":       {[]string{secret, redis, postgres}, "serve --trusted-proxies nginx", `"nginx"`},
		"too many connections":  {[]string{secret, redis, postgres}, "serve --max-connections 99999999999", "ulimit -n"},
		"silent at once":        {[]string{secret, redis, postgres}, "serve --silent-after 0s", "--silent-after: must be more than 0"},
		"silent before":         {[]string{secret, redis, postgres}, "serve --silent-after=-1s", "--silent-after: must be more than 0"},
		"an address of no port": {[]string{secret, redis, postgres}, "serve --advertise plugcast.example.com", "--advertise: must be"},
		"no devices":            {[]string{secret, redis, postgres}, "serve --max-devices 0", "--max-devices: must be 1 or more"},
		"systems of no device":  {[]string{secret, redis, postgres}, "serve --max-system-devices 0", "--max-system-devices: must be 1 or more"},
		"less than nothing":     {[]string{secret, redis, postgres}, "serve --max-connections -1", "--max-connections"},
		"tail of a bad system":  {[]string{redis, postgres}, "tail --system a/b", "system"},
		"tail from nowhere":     {[]string{redis, postgres}, "tail --system s --after x", "position"},
		"tail of an http URL":   {[]string{secret}, "tail --system s --url http://h", "ws://"},
		"tail without a token":  {nil, "tail --system s --url ws://h/ws", "--token"},
		"replay to nowhere":     {[]string{postgres}, "replay --system s", "--out"},
		"replay until never":    {[]string{postgres}, "replay --system s --out - --until tomorrow", "--until"},
		"replay at no speed":    {[]string{postgres}, "replay --system s --out - --speed 3x", "3x"},
		"replay of a gap":       {[]string{postgres}, "replay --system s --out - --types a,,b", "--type"},
		"replay after nothing":  {[]string{postgres}, "replay --system s --out - --after=", "--after"},
		"replay until nothing":  {[]string{postgres}, "replay --system s --out - --until=", "--until"},
		"tail after nothing":    {[]string{postgres}, "tail --system s --after=", "--after"},
		"tail of no type":       {[]string{postgres}, "tail --system s --type=", "--type"},
		"replay of no device":   {[]string{postgres}, "replay --system s --out - --device a/b", "--device"},
		"replay without store":  {nil, "replay --system s --out -", "PLUGCAST_POSTGRES_URL"},
		"verify nothing":        {[]string{postgres}, "verify", "FILE"},
		"verify both":           {[]string{postgres}, "verify f --system s", "FILE"},
		"rebuild what is not":   {[]string{postgres}, "rebuild --projection moods", "moods"},
		"simulate nowhere":      {nil, "simulate", "--url"},
		"simulate to HTTP":      {nil, "simulate --url http://h/shelly/c/hunter2", "ws://"},
		"simulate to no path":   {nil, "simulate --url ws://h", "ws://"},
		"simulate nothing":      {nil, "simulate --url ws://h/shelly/c/k --devices 0", "--devices"},
		"simulate too many":     {nil, "simulate --url ws://h/shelly/c/k --devices 20001", "20000"},
		"simulate half a plug":  {nil, "simulate --url ws://h/shelly/c/k --devices 0.5", "--devices"},
		"simulate backwards":    {nil, "simulate --url ws://h/shelly/c/k --rate -1", "--rate"},
		"simulate a storm":      {nil, "simulate --url ws://h/shelly/c/k --rate NaN", "--rate"},
		"simulate no seed":      {[]string{"PLUGCAST_SEED=x"}, "simulate --url ws://h/shelly/c/k", "--seed"},
		"migrate without store": {nil, "migrate", "PLUGCAST_POSTGRES_URL"},
		"status without store":  {nil, "migrate status", "PLUGCAST_POSTGRES_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plugcast(t, c.env, strings.Fields(c.args)...).wants(t, exitUsage, c.says)
		})
	}
}

// Docker Compose passes a variable without a value as an empty one.
func TestEmptyVariableIsUnset(t *testing.T) {
	t.Parallel()
	env := []string{"PLUGCAST_PARTITIONS=", "PLUGCAST_LOG_LEVEL=", "PLUGCAST_ROLES=", "PLUGCAST_LISTEN=", "PLUGCAST_DRAIN_TIMEOUT="}
	plugcast(t, env, "serve", "--jwt-secret", testSecret).wants(t, exitUsage, "PLUGCAST_REDIS_URL")
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	if r := plugcast(t, nil); r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, "Usage: plugcast <command>") {
		t.Errorf("without a command the help is expected on stderr: %+v", r)
	}
	if r := plugcast(t, []string{"PLUGCAST_VERSION=3"}, "--version"); r.code != exitDone || !strings.HasPrefix(r.stdout, "plugcast ") {
		t.Errorf("--version: %+v", r)
	}
	// A variable of that name, which a container may well have, is no flag.
	plugcast(t, []string{"PLUGCAST_VERSION=true"}, "verify").wants(t, exitUsage, "FILE")

	secrets := []string{
		"PLUGCAST_JWT_SECRET=hunter2", "PLUGCAST_SECRET_KEY=hunter2", "PLUGCAST_TOKEN=hunter2", "PLUGCAST_URL=ws://u:hunter2@h",
		"PLUGCAST_REDIS_URL=redis://:hunter2@h", "PLUGCAST_POSTGRES_URL=postgres://u:hunter2@h/d",
	}
	for _, name := range []string{"dev", "serve", "migrate", "migrate status", "token", "tail", "simulate", "replay", "verify", "rebuild"} {
		r := plugcast(t, secrets, append(strings.Fields(name), "--help")...)
		if r.code != exitDone || r.stderr != "" || !strings.Contains(r.stdout, "Usage: plugcast "+name) {
			t.Errorf("%s --help: %+v", name, r)
		}
		if strings.Contains(r.stdout, "hunter2") {
			t.Errorf("the help of %s shows a secret of the environment:\n%s", name, r.stdout)
		}
	}
}

// Every flag but --help and --version can be set in the environment, and the
// help says how.
func TestHelpNamesEveryVariable(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"dev", "serve", "migrate up", "migrate status", "token", "tail", "simulate", "replay", "verify", "rebuild"} {
		help := plugcast(t, nil, append(strings.Fields(name), "--help")...).stdout
		found := 0
		for word := range strings.FieldsSeq(help) {
			flag, isFlag := strings.CutPrefix(word, "--")
			flag, _, _ = strings.Cut(strings.TrimPrefix(flag, "[no-]"), "=")
			if !isFlag || flag == "help" || flag == "version" || strings.Trim(flag, "abcdefghijklmnopqrstuvwxyz-") != "" {
				continue
			}
			found++
			if variable := "$PLUGCAST_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")); !strings.Contains(help, variable+")") {
				t.Errorf("the help of %s does not name %s", name, variable)
			}
		}
		if found < 2 {
			t.Errorf("the help of %s has %d flags:\n%s", name, found, help)
		}
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	env := []string{"PLUGCAST_JWT_SECRET=" + testSecret}
	authenticator, err := auth.New(auth.Config{Secret: []byte(testSecret)}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]domain.Actor{
		"--system s1,s2 --role viewer":          {Subject: "viewer", Role: domain.RoleViewer, Systems: []domain.SystemID{"s1", "s2"}},
		"--system * --role staff --subject ana": {Subject: "ana", Role: domain.RoleStaff, AllSystems: true},
	} {
		r := plugcast(t, env, append([]string{"token", "--ttl", "90m"}, strings.Fields(args)...)...)
		if r.code != exitDone || r.stderr != "" || strings.Count(r.stdout, "\n") != 1 {
			t.Fatalf("token %s: %+v", args, r)
		}
		got, err := authenticator.Verify(t.Context(), strings.TrimSpace(r.stdout))
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(got.ExpiresAt); left > 90*time.Minute || left < 80*time.Minute {
			t.Errorf("token %s is good for %v", args, left)
		}
		if got.Subject != want.Subject || got.Role != want.Role || got.AllSystems != want.AllSystems || len(got.Systems) != len(want.Systems) {
			t.Errorf("token %s is %+v, want %+v", args, got, want)
		}
	}
}

// mute accepts connections and never says a word.
func mute(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	return listener.Addr().String()
}

// Whatever is wrong with a backend, a command says so in one line, soon, and
// without the password.
func TestBackendsThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	deaf := mute(t)
	wrongPassword := strings.Replace(d.postgres, ":"+passwordOf(t, d.postgres)+"@", ":hunter2@", 1)
	redis := strings.TrimPrefix(d.redis.URL(), "redis://")
	for name, c := range map[string]struct{ redis, postgres, says string }{
		"no Postgres":              {d.redis.URL(), "postgres://u:hunter2@127.0.0.1:1/d", "refused"},
		"a mute Postgres":          {d.redis.URL(), "postgres://u:hunter2@" + deaf + "/d?sslmode=disable", "deadline"},
		"a wrong password":         {d.redis.URL(), wrongPassword, "password authentication failed"},
		"a Postgres URL garbled":   {d.redis.URL(), "postgres://u:hunter2%zz@h/d", "cannot parse"},
		"a Postgres port garbled":  {d.redis.URL(), "postgres://u:hunter2@h:x/d", "cannot parse"},
		"no Redis":                 {"redis://:hunter2@127.0.0.1:1", d.postgres, "refused"},
		"a mute Redis":             {"redis://:hunter2@" + deaf, d.postgres, "timeout"},
		"a wrong password (Redis)": {"redis://u:hunter2@" + redis, d.postgres, "WRONGPASS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := []string{"PLUGCAST_REDIS_URL=" + c.redis, "PLUGCAST_POSTGRES_URL=" + c.postgres, "PLUGCAST_JWT_SECRET=" + testSecret}
			commands := []string{"serve --listen 127.0.0.1:0", "tail --system s"}
			if c.redis == d.redis.URL() {
				commands = append(commands, "migrate", "migrate status", "replay --system s --out -", "verify --system s", "rebuild")
			}
			for _, args := range commands {
				t.Run(args, func(t *testing.T) {
					t.Parallel()
					r := plugcast(t, env, strings.Fields(args)...)
					r.wants(t, exitFailed, c.says)
					if strings.Contains(r.stderr, "hunter2") {
						t.Errorf("it shows the password: %s", r.stderr)
					}
				})
			}
		})
	}
}

func passwordOf(t *testing.T, rawURL string) string {
	t.Helper()
	_, rest, _ := strings.Cut(strings.TrimPrefix(rawURL, "postgres://"), ":")
	password, _, found := strings.Cut(rest, "@")
	if !found || password == "" {
		t.Fatal("the URL of the test's Postgres has no password")
	}
	return password
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, nil)
	env := []string{"PLUGCAST_POSTGRES_URL=" + url, "PLUGCAST_REDIS_URL=redis://127.0.0.1:1", "PLUGCAST_JWT_SECRET=" + testSecret,
		"PLUGCAST_LOG_LEVEL=warn"}
	for _, args := range []string{
		"serve --listen 127.0.0.1:0", "tail --system s", "replay --system s --out -", "verify --system s", "rebuild"} {
		plugcast(t, env, strings.Fields(args)...).wants(t, exitFailed, "run plugcast migrate")
	}
	if r := plugcast(t, env, "migrate", "status"); r.code != exitDone || !strings.Contains(r.stdout, "not applied") {
		t.Errorf("status before: %+v", r)
	}
	for range 2 {
		if r := plugcast(t, env, "migrate"); r.code != exitDone || r.stdout != "the schema is up to date\n" || r.stderr != "" {
			t.Errorf("migrate: %+v", r)
		}
	}
	if r := plugcast(t, env, "migrate", "status"); r.code != exitDone || strings.Contains(r.stdout, "not applied") || r.stdout == "" {
		t.Errorf("status after: %+v", r)
	}
}

func TestAddressThatCannotBeListenedOn(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	taken := mute(t)
	for _, address := range []string{taken, "nonsense", "127.0.0.1:70000"} {
		plugcast(t, d.env, "serve", "--listen", address).wants(t, exitFailed, "cannot listen on "+address)
		plugcast(t, d.env, "serve", "--listen", "127.0.0.1:0", "--admin-listen", address).
			wants(t, exitFailed, "another address with --admin-listen")
	}
}

// exported publishes n events of one system and returns its whole export's path.
func exported(t *testing.T, d *deployment, n *node, system domain.SystemID, count int) string {
	t.Helper()
	publish(t, n.base, testSecret, system, count)
	testpeer.Eventually(t, "history", func() bool { return len(history(t, n.base, system)) >= count })
	path := filepath.Join(t.TempDir(), "export.ndjson")
	if r := plugcast(t, d.env, "replay", "--system", string(system), "--out", path); r.code != exitDone {
		t.Fatalf("replay: %+v", r)
	}
	return path
}

// publish sends updates of two devices in turn, in one batch.
func publish(t *testing.T, base, secret string, system domain.SystemID, count int) {
	t.Helper()
	batch := make([]map[string]any, count)
	for i := range batch {
		batch[i] = map[string]any{"systemId": system, "deviceId": []string{"plug-a", "plug-b"}[i%2], "powerW": i}
	}
	mustCall(t, 200, "POST", base+"/api/v1/device-updates", signed(t, secret, domain.RoleService, system), batch, nil)
}

// signed makes a token for one system.
func signed(t *testing.T, secret string, role domain.Role, system domain.SystemID) string {
	t.Helper()
	actor := domain.Actor{Subject: "test", Role: role, Systems: []domain.SystemID{system}, ExpiresAt: time.Now().Add(time.Hour)}
	token, err := auth.Config{Secret: []byte(secret)}.Sign(actor, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestReplay(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	path := exported(t, d, n, "s", 10)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(whole), "\n"), "\n")
	if len(lines) != 10 {
		t.Fatalf("the export has %d lines", len(lines))
	}
	fifth, err := domain.ParseCloudEvent([]byte(lines[4]))
	if err != nil {
		t.Fatal(err)
	}
	at, then := fifth.Event.Position.String(), domain.FormatTime(fifth.Event.Time)
	byThen := 0 // events of one request may share their time
	for _, line := range lines {
		if l, err := domain.ParseCloudEvent([]byte(line)); err != nil {
			t.Fatal(err)
		} else if !l.Event.Time.After(fifth.Event.Time) {
			byThen++
		}
	}
	for args, want := range map[string]int{
		"":                                 10,
		"--until " + at:                    5,
		"--until " + then:                  byThen,
		"--after " + at:                    5,
		"--until 2000-01-01T00:00:00Z":     0,
		"--until 2200-01-01T00:00:00Z":     10,
		"--device plug-b":                  5,
		"--devices plug-b,plug-a":          10,
		"--device plug-b --devices plug-c": 5,
		"--types equipment-registered,device-update --device plug-a": 5,
		"--until 0-0":                        0,
		"--until 0001-01-01T00:00:00Z":       0,
		"--until 1970-01-01T00:00:00Z":       0,
		"--after 0-0":                        10,
		"--type device-update --speed 10x":   10,
		"--type equipment-registered":        0,
		"--device plug-a --after " + at:      2,
		"--until " + at + " --device plug-a": 3,
	} {
		r := plugcast(t, d.env, append([]string{"replay", "--system", "s", "--out", "-"}, strings.Fields(args)...)...)
		if got := strings.Count(r.stdout, "\n"); r.code != exitDone || got != want {
			t.Errorf("replay %s: code %d, %d lines, want %d: %s", args, r.code, got, want, r.stderr)
		}
	}
	if r := plugcast(t, d.env, "replay", "--system", "s", "--out", "-"); r.stdout != string(whole) {
		t.Error("standard output differs from the file")
	}
}

func TestReplayInto(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	dir := t.TempDir()
	replay := func(out string) result { return plugcast(t, d.env, "replay", "--system", "s", "--out", out) }
	replay(dir).wants(t, exitUsage, "is a directory")
	replay(filepath.Join(dir, "missing", "f")).wants(t, exitFailed, "no such file")

	// A pipe stays a pipe: /dev/null must not become a file.
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(pipe)
		read <- err
	}()
	if r := replay(pipe); r.code != exitDone {
		t.Errorf("into a pipe: %+v", r)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(pipe); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the pipe is gone: %v %v", info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.part")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	path := exported(t, d, n, "s", 6)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSpace(string(raw)), "\n")
	file := func(t *testing.T, content ...string) string {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(strings.Join(content, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, args := range [][]string{{path}, {"--system", "s"}} {
		if r := plugcast(t, d.env, append([]string{"verify"}, args...)...); r.code != exitDone || !strings.HasPrefix(r.stdout, "6 events hold") {
			t.Errorf("verify %v: %+v", args, r)
		}
	}
	for name, c := range map[string]struct {
		content []string
		says    string
	}{
		"altered": {[]string{lines[0], lines[1], strings.Replace(lines[2], `"powerW":2`, `"powerW":9`, 1), lines[3]},
			"broken after 2 good events"},
		"removed":     {[]string{lines[0], lines[2]}, "(seq 3): events before it are missing"},
		"swapped":     {[]string{lines[0], lines[1], lines[0]}, "out of order"},
		"no export":   {[]string{"hello\n"}, "line 1"},
		"other JSON":  {[]string{lines[0], "{}\n"}, "line 2"},
		"cut off":     {[]string{lines[0], lines[1][:50]}, "line 2"},
		"only zeroes": {[]string{strings.Repeat("\x00", maxLine+1)}, "line 1: longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plugcast(t, nil, "verify", file(t, c.content...)).wants(t, exitFailed, c.says)
		})
	}
	plugcast(t, nil, "verify", filepath.Join(t.TempDir(), "nothing")).wants(t, exitFailed, "no such file")
	plugcast(t, nil, "verify", t.TempDir()).wants(t, exitFailed, "directory")

	filtered := filepath.Join(t.TempDir(), "filtered")
	plugcast(t, d.env, "replay", "--system", "s", "--device", "plug-b", "--out", filtered)
	if r := plugcast(t, nil, "verify", filtered); r.code != exitDone || !strings.Contains(r.stdout, "PARTIAL: 3 events") {
		t.Errorf("verify of an export that leaves out: %+v", r)
	}
}

// Half an export or half a check must not pass for the whole.
func TestInterruptedCommandFails(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"verify", path}, &stdout, &stderr); code != exitFailed || stderr.String() != "plugcast: interrupted\n" {
		t.Errorf("exit code %d, %q %q", code, stdout.String(), stderr.String())
	}
}
