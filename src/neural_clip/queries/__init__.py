"""What a gallery is asked at a shell: by files of recordings, images and words; tables and pictures of the answers."""
