// CommonsCompress VARIANT SOURCE writes a tar of SOURCE with Apache Commons Compress.
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.commons.compress.archivers.tar.TarArchiveEntry;
import org.apache.commons.compress.archivers.tar.TarArchiveOutputStream;
import org.apache.commons.compress.archivers.tar.TarConstants;

public final class CommonsCompress {
    public static void main(String[] arguments) throws Exception {
        String variant = arguments[0];
        Path source = Path.of(arguments[1]);
        List<Path> paths;
        try (Stream<Path> walk = Files.walk(source)) {
            paths = walk.filter(path -> !path.equals(source)).sorted().collect(Collectors.toList());
        }
        try (TarArchiveOutputStream out = new TarArchiveOutputStream(System.out, "UTF-8")) {
            if (variant.equals("posix")) {
                out.setLongFileMode(TarArchiveOutputStream.LONGFILE_POSIX);
                out.setBigNumberMode(TarArchiveOutputStream.BIGNUMBER_POSIX);
                out.setAddPaxHeadersForNonAsciiNames(true);
            } else if (variant.equals("gnu")) {
                out.setLongFileMode(TarArchiveOutputStream.LONGFILE_GNU);
                out.setBigNumberMode(TarArchiveOutputStream.BIGNUMBER_STAR);
            }
            for (Path path : paths) {
                add(out, path, source.relativize(path).toString());
            }
        }
    }

    private static void add(TarArchiveOutputStream out, Path path, String name) throws Exception {
        boolean link = Files.isSymbolicLink(path);
        TarArchiveEntry entry = link
            ? new TarArchiveEntry(name, TarConstants.LF_SYMLINK)
            : new TarArchiveEntry(path.toFile(), name);
        if (link) {
            entry.setLinkName(Files.readSymbolicLink(path).toString());
        } else if (Files.isRegularFile(path) && Files.isExecutable(path)) {
            entry.setMode(0100755);
        }
        out.putArchiveEntry(entry);
        if (!link && Files.isRegularFile(path)) {
            Files.copy(path, out);
        }
        out.closeArchiveEntry();
    }
}
