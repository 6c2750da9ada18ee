# kbnn with everything it needs, for those who want no Python environment of their own. Not built by the tests.
#
#   docker build -t kbnn .
#   docker run --rm -v "$PWD:/work" kbnn train --model resnet20 --data photos/ --size 32
#
# LCE has wheels for x86-64 only: on ARM, training works, and conversion says what is missing.
FROM python:3.11-slim
COPY . /source
RUN pip install --no-cache-dir --disable-pip-version-check -c /source/constraints.txt /source && rm -rf /source
# Files in the mounted folder belong to whoever runs the container: docker run --user "$(id -u):$(id -g)".
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["kbnn"]
CMD ["--help"]
