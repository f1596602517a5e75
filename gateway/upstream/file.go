package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// The bounds of a file of origins.
const (
	fileEvery  = time.Second // between two looks at it
	maxFile    = 1 << 20     // bytes
	maxInFile  = 1000        // origins
	maxWeighed = 1000        // the largest weight, as in the config
)

// fileSource follows a file that lists origins. It is looked at rather than watched by the kernel: that works on every
// file system, through renames and symbolic links, and costs one stat a second.
type fileSource struct {
	path  string
	every time.Duration
	seen  fs.FileInfo // when it was read last; nil: not yet, or it could not be
	at    time.Time
	last  []Member
}

var errNoOrigins = errors.New("it lists no origins")

// find reads the file if it has changed. An error leaves it to be read again.
func (f *fileSource) find() ([]Member, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		f.seen = nil
		return nil, err
	}
	// A file that was just written may change again within the resolution of its time.
	if f.seen != nil && os.SameFile(f.seen, info) && f.seen.Size() == info.Size() && f.seen.ModTime().Equal(info.ModTime()) && f.at.Sub(info.ModTime()) > 2*fileEvery {
		return f.last, nil
	}
	f.seen = nil
	if info.IsDir() {
		return nil, errors.New("it is a folder; name the file in it")
	}
	found, err := readMembers(f.path)
	if err != nil {
		return nil, err
	}
	f.seen, f.at, f.last = info, time.Now(), found
	return found, nil
}

func readMembers(path string) ([]Member, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // nothing was written
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	return parseMembers(data)
}

// parseMembers reads a URL and, if it is not 1, a weight from each line; # begins a comment. One faulty line refuses the
// file: what was meant by the others can't be known either.
func parseMembers(data []byte) ([]Member, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	var out []Member
	have := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxFile+1)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		m := Member{URL: words[0], Weight: 1}
		u, err := url.Parse(m.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || u.User != nil || m.URL != u.Scheme+"://"+u.Host {
			return nil, fmt.Errorf("line %d: %.80q is not of the form http://host:port or https://host:port", n, m.URL)
		}
		if len(words) > 1 {
			if m.Weight, err = strconv.Atoi(words[1]); err != nil || m.Weight < 1 || m.Weight > maxWeighed {
				return nil, fmt.Errorf("line %d: %.20q is no weight from 1 to %d", n, words[1], maxWeighed)
			}
		}
		if len(words) > 2 {
			return nil, fmt.Errorf("line %d: %.40q is too much: a line is a URL and a weight", n, words[2])
		}
		if have[m.URL] {
			return nil, fmt.Errorf("line %d: %.80q stands in the file twice", n, m.URL)
		}
		have[m.URL] = true
		if out = append(out, m); len(out) > maxInFile {
			return nil, fmt.Errorf("it lists more than %d origins", maxInFile)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errNoOrigins
	}
	return out, nil
}
