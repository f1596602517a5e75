package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"landfall/gateway/certs"
)

func fleetCommand() *cobra.Command {
	c := &cobra.Command{Use: "fleet", Short: "The fleet's CA, node certificates and mesh key: made, and rotated"}
	c.AddCommand(fleetInitCommand(), fleetCertCommand(), fleetKeysCommand(), fleetKeyCommand(), fleetRotateCommand())
	return c
}

func fleetInitCommand() *cobra.Command {
	var dir, name string
	c := &cobra.Command{
		Use: "init", Short: "Make a CA (ca.pem, ca.key) and print a mesh key", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails (crypto/rand)
			ca, err := certs.NewCA("Landfall fleet "+name, time.Now())
			if err != nil {
				return err
			}
			if err := errors.Join(writeNew(filepath.Join(dir, "ca.key"), ca.KeyPEM()), writeNew(filepath.Join(dir, "ca.pem"), ca.CertPEM())); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "LANDFALL_MESH_KEY=%s\n", base64.StdEncoding.EncodeToString(key))
			fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s and ca.key; keep ca.key off the nodes. Give the line above to every node's environment.\n", filepath.Join(dir, "ca.pem"))
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", ".", "folder to write to")
	c.Flags().StringVar(&name, "fleet", "landfall", "name of the fleet, for the CA's own name")
	return c
}

func fleetCertCommand() *cobra.Command {
	var dir, fleet string
	var lifetime time.Duration
	var ips []net.IP
	c := &cobra.Command{
		Use: "cert NODE", Short: "Issue a node's certificate (NODE.pem, NODE.key) by the CA in the folder", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node := args[0]
			caCert, err1 := os.ReadFile(filepath.Join(dir, "ca.pem"))
			caKey, err2 := os.ReadFile(filepath.Join(dir, "ca.key"))
			if err := errors.Join(err1, err2); err != nil {
				return fmt.Errorf("read the fleet's CA (`landfall fleet init` makes one): %w", err)
			}
			ca, err := certs.LoadCA(caCert, caKey)
			if err != nil {
				return err
			}
			issue := func() ([]byte, []byte, error) { return ca.Issue([]string{node}, ips, time.Now(), lifetime) }
			if fleet != "" {
				issue = func() ([]byte, []byte, error) { return ca.IssueNode(fleet, node, ips, time.Now(), lifetime) }
			}
			cert, key, err := issue()
			if err != nil {
				return err
			}
			if err := errors.Join(writeNew(filepath.Join(dir, node+".key"), key), writeNew(filepath.Join(dir, node+".pem"), cert)); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %s and %s.key, valid for %s\n", filepath.Join(dir, node+".pem"), node, lifetime)
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", ".", "folder with ca.pem and ca.key, and to write to")
	c.Flags().DurationVar(&lifetime, "lifetime", 365*24*time.Hour, "how long the certificate holds")
	c.Flags().StringVar(&fleet, "fleet", "", "name of the fleet, to put into the certificate: other fleets then refuse it, even with the same CA")
	c.Flags().IPSliceVar(&ips, "ip", nil, "addresses to put into the certificate, beside the node's name")
	return c
}

// writeNew writes a file that must not exist: a CA or key that is overwritten is lost.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("nothing was overwritten: %w", err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
