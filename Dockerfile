# kbnn with everything it needs, for users who do not want to set up Python. The tests do not build this image.
#
#   docker build -t kbnn .
#   docker run --rm -v "$PWD:/work" kbnn train --model resnet20 --data photos/ --size 32
#
# LCE has wheels for x86-64 only: on ARM, training works, and conversion reports that LCE is missing.
FROM python:3.11-slim
COPY . /source
RUN pip install --no-cache-dir --disable-pip-version-check -c /source/constraints.txt /source && rm -rf /source
# Files in the mounted folder belong to whoever runs the container: docker run --user "$(id -u):$(id -g)".
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["kbnn"]
CMD ["--help"]
