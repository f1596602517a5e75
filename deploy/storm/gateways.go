package storm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// Known are the gateways that can be drilled beside landfall.
func Known() []string { return []string{"nginx", "haproxy"} }

// landfall is a node of its own, with adaptive concurrency; all else is by default.
func landfall(executable string) gateway {
	return gateway{"landfall", func(ctx context.Context, running *sync.WaitGroup, origin string) (string, error) {
		return spawn(ctx, running, executable, func(dir, addr string) (string, []string) {
			return fmt.Sprintf(`listen: {http: ["%s"], admin: "127.0.0.1:0"}
services:
  storm:
    hosts: ["*"]
    pools: {any: {origins: ["%s"]}}
    pool: {concurrency: adaptive}
    routes: [{cache: off, timeout: {total: 1s}}]
observe: {access_log: {path: off}, log_level: error}
`, addr, origin), []string{"run", "--config", filepath.Join(dir, "config"), "--node", "storm"}
		})
	}}
}

// other is another gateway with its defaults, or why it can't be had.
func other(name string) (g gateway, why string) {
	configs := map[string]func(origin string) func(dir, addr string) (string, []string){
		"nginx": func(origin string) func(dir, addr string) (string, []string) {
			return func(dir, addr string) (string, []string) {
				return fmt.Sprintf("pid %[1]s/pid;\nerror_log /dev/null;\nevents {}\nhttp {\n  access_log off;\n  client_body_temp_path %[1]s/b;\n  proxy_temp_path %[1]s/p;\n  fastcgi_temp_path %[1]s/f;\n"+
						"  uwsgi_temp_path %[1]s/u;\n  scgi_temp_path %[1]s/s;\n  server { listen %[2]s; location / { proxy_pass %[3]s; } }\n}\n", dir, addr, origin),
					[]string{"-p", dir, "-c", filepath.Join(dir, "config"), "-g", "daemon off;"}
			}
		},
		"haproxy": func(origin string) func(dir, addr string) (string, []string) {
			return func(dir, addr string) (string, []string) {
				return fmt.Sprintf("defaults\n  mode http\n  timeout connect 5s\n  timeout client 50s\n  timeout server 50s\n\nfrontend f\n  bind %s\n  default_backend b\n\nbackend b\n  server s %s\n",
					addr, origin[len("http://"):]), []string{"-db", "-f", filepath.Join(dir, "config")}
			}
		},
	}
	config, known := configs[name]
	if !known {
		return gateway{}, "it is not one that this drill knows"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		return gateway{}, "it is not installed"
	}
	return gateway{name, func(ctx context.Context, running *sync.WaitGroup, origin string) (string, error) {
		return spawn(ctx, running, path, config(origin))
	}}, ""
}

// spawn starts a gateway on a free port, with a config of its own, and waits until it answers.
func spawn(ctx context.Context, running *sync.WaitGroup, program string, configure func(dir, addr string) (config string, args []string)) (string, error) {
	dir, err := os.MkdirTemp("", "storm-")
	if err != nil {
		return "", err
	}
	addr, err := freeAddr()
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	config, args := configure(dir, addr)
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	log := filepath.Join(dir, "log")
	out, err := os.Create(log)
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := errors.Join(cmd.Start(), out.Close()); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	ended := make(chan struct{})
	running.Go(func() {
		_ = cmd.Wait() // it ends when it is told to, or answers show that it has
		close(ended)
		_ = os.RemoveAll(dir)
	})
	url := "http://" + addr + "/"
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		if answers(ctx, url) {
			return url, nil
		}
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-t.C:
			continue
		case <-ended:
			return "", fmt.Errorf("%s ended by itself: %s", program, cmd.ProcessState)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "", fmt.Errorf("%s did not answer within 15 s", program)
}

func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
