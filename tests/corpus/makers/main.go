// main VARIANT SOURCE writes a tar of SOURCE with archive/tar.
package main

import (
	"archive/tar"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"time"
)

var formats = map[string]tar.Format{
	"default": tar.FormatUnknown,
	"ustar":   tar.FormatUSTAR,
	"pax":     tar.FormatPAX,
	"gnu":     tar.FormatGNU,
}

func main() {
	format, source := formats[os.Args[1]], os.Args[2]
	out := tar.NewWriter(os.Stdout)
	err := filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		target := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		header.Format = format
		if format == tar.FormatUSTAR {
			header.ModTime = header.ModTime.Truncate(time.Second)
			header.AccessTime, header.ChangeTime = time.Time{}, time.Time{}
		}
		if header.Name, err = filepath.Rel(source, path); err != nil {
			return err
		}
		if entry.IsDir() {
			header.Name += "/"
		}
		if err = out.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(out, file)
		return err
	})
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		log.Fatal(err)
	}
}
