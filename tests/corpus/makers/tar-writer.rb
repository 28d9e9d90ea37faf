# tar-writer.rb LIBRARY SOURCE: writes a tar of SOURCE with RubyGems or with minitar.
library, source = ARGV
$stdout.binmode
Dir.chdir(source)
names = Dir.glob('**/*', File::FNM_DOTMATCH).reject { |name| name.end_with?('/.') || name == '.' }.sort
if library == 'rubygems'
  require 'rubygems/package'
  Gem::Package::TarWriter.new($stdout) do |tar|
    names.each do |name|
      mode = File.lstat(name).mode & 0o777
      if File.symlink?(name)
        tar.add_symlink(name, File.readlink(name), mode)
      elsif File.directory?(name)
        tar.mkdir(name, mode)
      else
        content = File.binread(name)
        tar.add_file_simple(name, mode, content.bytesize) { |file| file.write(content) }
      end
    end
  end
else
  begin
    require 'minitar'
  rescue LoadError
    require 'archive/tar/minitar'
  end
  minitar = defined?(::Minitar) ? ::Minitar : Archive::Tar::Minitar
  files = names.reject { |name| File.symlink?(name) }
  output = minitar::Output.new($stdout)
  files.each { |name| minitar.pack_file(name, output) }
  output.tar.close
end
