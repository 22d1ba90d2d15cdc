package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/plugcast/plugcast/streams/childproc"
)

// debianRoot is the directory in which Debian and similar systems install Postgres, one
// directory for each major version, outside of PATH.
const debianRoot = "/usr/lib/postgresql"

// environment is the whole environment of the programs: it has none of the PG* variables.
var environment = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}

// programs are the programs of one installed version of Postgres.
type programs struct {
	postgres, initdb string
}

// findPrograms returns the programs of a major version or, for major 0, the preferred ones:
// those of PATH, then the newest in the directories of root.
func findPrograms(ctx context.Context, root string, major int) (programs, error) {
	found := installed(root)
	if len(found) == 0 {
		return programs{}, errors.New("postgres is not installed; on Debian or Ubuntu run: apt-get install postgresql")
	}
	if major == 0 {
		return found[0], nil
	}
	var versions []string
	for _, p := range found {
		version, err := p.major(ctx)
		if err != nil {
			continue // a broken installation counts as none
		}
		if version == major {
			return p, nil
		}
		versions = append(versions, strconv.Itoa(version))
	}
	return programs{}, fmt.Errorf("the data were created by Postgres %d, but only Postgres %s is installed", major,
		strings.Join(versions, " and "))
}

// installed returns the installed versions, the preferred one first.
func installed(root string) []programs {
	var found []programs
	postgres, err := exec.LookPath("postgres")
	initdb, err2 := exec.LookPath("initdb")
	if err == nil && err2 == nil {
		found = append(found, programs{postgres: postgres, initdb: initdb})
	}
	dirs, _ := filepath.Glob(filepath.Join(root, "*", "bin"))
	version := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range dirs {
		p := programs{postgres: filepath.Join(dir, "postgres"), initdb: filepath.Join(dir, "initdb")}
		if executable(p.postgres) && executable(p.initdb) {
			found = append(found, p)
		}
	}
	return found
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

var versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// major returns the program's major version.
func (p programs) major(ctx context.Context) (int, error) {
	out, err := childproc.Run(ctx, childproc.Command{Path: p.postgres, Args: []string{"--version"}, Env: environment, Dir: "/"})
	if err != nil {
		return 0, fmt.Errorf("version of %s: %w: %s", p.postgres, err, out)
	}
	match := versionText.FindSubmatch(out)
	if match == nil {
		return 0, fmt.Errorf("version of %s: unexpected output %q", p.postgres, out)
	}
	return strconv.Atoi(string(match[1]))
}
