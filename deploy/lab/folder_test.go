package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

func TestRemoveStaleFoldersOnly(t *testing.T) {
	tmp := t.TempDir()
	ended := exec.Command(os.Args[0], "-test.run=^$")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	dir := func(name, pid string) string {
		path := filepath.Join(tmp, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if pid != "" {
			if err := os.WriteFile(filepath.Join(path, pidFile), []byte(pid), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	deadPID := fmt.Sprintf("%d\n", ended.Process.Pid)
	dir(dirPrefix+"crashed", deadPID)
	dir(dirPrefix+"alive", fmt.Sprintf("%d\n", os.Getpid()))
	dir(dirPrefix+"without-pid", "")
	dir(dirPrefix+"garbage", "x\n")
	dir(dirPrefix+"minus", "-1\n") // kill(-1) would ask about every process
	dir("someone-elses", deadPID)
	locked, err := os.Open(filepath.Join(dir(dirPrefix+"locked", deadPID), pidFile)) // its process is in another container
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	if err := lock(locked); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir("target", deadPID), filepath.Join(tmp, dirPrefix+"link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(tmp, "target", pidFile), filepath.Join(dir(dirPrefix+"linked-pid", ""), pidFile)); err != nil {
		t.Fatal(err)
	}
	removeStale(tmp)
	entries, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	want := []string{dirPrefix + "alive", dirPrefix + "garbage", dirPrefix + "link", dirPrefix + "linked-pid", dirPrefix + "locked", dirPrefix + "minus", dirPrefix + "without-pid", "someone-elses", "target"}
	if !slices.Equal(got, want) {
		t.Errorf("left:\n%q, want\n%q", got, want)
	}
}
