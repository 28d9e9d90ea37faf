<?php
// phar-data.php SOURCE TARGET.tar: writes a tar of SOURCE with PharData.
[, $source, $target] = $argv;
$tar = new PharData($target);
$tar->buildFromDirectory($source);
$tar->addFromString('added.txt', "added\n");
$tar->addEmptyDir('added directory');
